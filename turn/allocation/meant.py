"""What protects a request that is about something live: the key of whoever that belongs to."""

from turn.allocation.allocator import Allocator
from turn.allocation.model import Allocation
from turn.allocation.request import Request
from turn.auth.third_party import Grant, ThirdParty
from turn.auth.users import Said
from turn.codec import registry
from turn.codec.registry import Method


def granted_for(allocator: Allocator, request: Request) -> Grant | None:
    """What a token gave whose key protects a request that brings none (RFC 7635 §9).

    A ConnectionBind comes over a connection of its own, and names its allocation by what it
    asks for.
    """
    if request.message.method == Method.CONNECTION_BIND:
        number = request.message.get(registry.CONNECTION_ID)
        allocation = allocator.peers.connections.allocation_of(number)
    else:
        allocation = allocator.table.get(request.client)
    return allocation.grant if allocation else None


def is_keyed_elsewhere(allocator: Allocator, third_party: ThirdParty, request: Request) -> bool:
    """Whether another worker knows that key: the one that has the allocation."""
    message = request.message
    if message.method != Method.CONNECTION_BIND:
        return False
    number = message.get(registry.CONNECTION_ID)
    return (
        number is not None
        and request.client.transport.is_stream
        and not message.has(registry.ACCESS_TOKEN)
        and third_party.knows(message.get(registry.USERNAME))
        and allocator.elsewhere.holds_connection(number)
    )


def kept_for(allocator: Allocator, request: Request) -> Said | None:
    """The keys of whoever began what a request is about; None: there is nothing of that kind.

    They are good as long as it lives: a back end that is away ends nothing. What begins an
    allocation is asked about.
    """
    if request.message.method == Method.ALLOCATE:
        return None
    allocation = _meant(allocator, request)
    if allocation is None or allocation.keys is None:
        return None
    is_owner = request.message.get(registry.USERNAME) == allocation.owner.username
    return (allocation.keys,) if is_owner else None


def _meant(allocator: Allocator, request: Request) -> Allocation | None:
    """By its connection with a peer (RFC 6062), by its ticket (RFC 8016), or by who asks."""
    message = request.message
    if message.method == Method.CONNECTION_BIND:
        number = message.get(registry.CONNECTION_ID)
        return allocator.peers.connections.allocation_of(number)
    ticket = message.get(registry.MOBILITY_TICKET)
    return allocator.of_ticket(ticket) if ticket else allocator.table.get(request.client)
