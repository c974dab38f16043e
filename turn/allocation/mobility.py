"""Mobility: a client that changes its network keeps its allocation (RFC 8016).

The ticket is a random number, and means something here alone; whoever shows it has to have the
owner's credentials as well. The move is made by the Refresh itself: its nonce was given to the new
address, so the client is there.
"""

from turn.allocation.allocator import Allocator
from turn.allocation.model import Allocation
from turn.allocation.request import Request
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.registry import Attributes


def begin(allocator: Allocator, request: Request, allocation: Allocation) -> Attributes:
    """Give the first ticket to a client that asks for one (RFC 8016 §3.1.2)."""
    if not (allocator.options.mobility and request.message.has(registry.MOBILITY_TICKET)):
        return ()
    return ((registry.MOBILITY_TICKET, allocator.issue_ticket(allocation)),)


def check_asked(request: Request) -> None:
    """See that an Allocate asks for a ticket and brings none. :raises StunError: 400."""
    if request.message.get(registry.MOBILITY_TICKET):
        raise StunError(400)


def holder(allocator: Allocator, request: Request) -> Allocation | None:
    """The allocation of the ticket that a Refresh shows; None: it shows none (RFC 8016 §3.2.2).

    :raises StunError: 400 for a ticket of nobody's, or from where its allocation is already; 437
        where there is another allocation; 441 where the ticket is somebody else's.
    """
    ticket = request.message.get(registry.MOBILITY_TICKET)
    if ticket is None or not allocator.options.mobility:
        return None
    allocation = allocator.of_ticket(ticket)
    here = allocator.table.get(request.client)
    if allocation is None or here is allocation:
        raise StunError(400)
    if here is not None or allocation.expires <= request.now.monotonic:
        raise StunError(437)
    if allocation.owner.username != request.proved.username:
        raise StunError(441)
    if allocation.is_tcp and not request.client.transport.is_stream:
        raise StunError(400)
    return allocation


def move(allocator: Allocator, request: Request, allocation: Allocation) -> Attributes:
    """Go on with an allocation where the Refresh came from; gives the next ticket.

    :raises StunError: 486, the new address has its share of allocations.
    """
    allocator.move(allocation, request.client, request.send)
    return ((registry.MOBILITY_TICKET, allocator.issue_ticket(allocation)),)
