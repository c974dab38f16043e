"""Mobility: a client that changes its network keeps its allocation (RFC 8016).

The ticket is a random number, and means something here alone; whoever shows it has to have the
owner's credentials as well. The move is made by the Refresh itself: its nonce was given to the new
address, so the client is there.
"""

from collections.abc import Callable

from turn.allocation.allocator import Allocator
from turn.allocation.connections import PeerStream
from turn.allocation.elsewhere import Moved, Shown
from turn.allocation.model import Allocation, Owner
from turn.allocation.request import Request, Waiting
from turn.allocation.restore import Kept, restore
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.registry import Attributes

GoOn = Callable[[Allocation], Attributes]
"""What a Refresh does to an allocation, and what it answers."""


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

    :raises StunError: 400 for a ticket of nobody's (or of another relay: the client begins anew),
        or from where its allocation is already; 405 where nobody may move any more; 437 where
        there is another allocation; 441 where the ticket is somebody else's.
    """
    ticket = request.message.get(registry.MOBILITY_TICKET)
    if ticket and not allocator.options.mobility:
        raise StunError(405)
    if ticket is None or not allocator.options.mobility:
        return None
    allocation = allocator.of_ticket(ticket)
    here = allocator.table.get(request.client)
    if allocation is None or here is allocation:
        raise StunError(400)
    if here is not None or allocation.expires <= request.now.monotonic:
        raise StunError(437)
    if not _may_have(allocation, request.owner, request.client.transport.is_encrypted):
        raise StunError(441)
    if allocation.is_tcp and not request.client.transport.is_stream:
        raise StunError(400)
    return allocation


def _may_have(allocation: Allocation, owner: Owner, is_encrypted: bool) -> bool:
    """Whether somebody may have the allocation whose ticket they show.

    A token says nothing of its holder but a key (RFC 7635), and the holder's next token has another
    one: then the ticket has to say who it is, and it does where nobody else can have seen it.
    """
    if allocation.is_held_by(owner):
        return True
    is_secret = is_encrypted and allocation.client.transport.is_encrypted
    return (
        is_secret and allocation.grant is not None and owner.username == allocation.owner.username
    )


def is_elsewhere(allocator: Allocator, request: Request) -> bool:
    """Whether a Refresh shows the ticket of another worker. :raises StunError: 437."""
    ticket = request.message.get(registry.MOBILITY_TICKET)
    if not ticket or not allocator.options.mobility or not allocator.elsewhere.holds_ticket(ticket):
        return False
    if allocator.table.get(request.client) is not None:
        raise StunError(437)
    return True


def fetch(allocator: Allocator, request: Request, go_on: GoOn) -> None:
    """Have the allocation handed over by that worker, and go on with it here."""

    def arrived(moved: Moved | int | None) -> None:
        if moved is None:
            _follow(allocator, request)
            return
        if isinstance(moved, int):
            request.answer(StunError(moved))
            return
        try:
            _check_still(allocator, request)
        except StunError as error:
            allocator.give_up(moved.relays)
            request.answer(error)
            return
        kept = Kept(moved.record, moved.relays, request.send, request.client)
        (allocation,) = restore(allocator, [kept], request.now.monotonic)
        try:
            request.answer(go_on(allocation))
        except StunError as error:
            request.answer(error)

    ticket = request.message.get(registry.MOBILITY_TICKET) or b""
    client = request.client
    if client.transport.is_stream:
        request.waiting = request.waiting or Waiting()
    shown = Shown(ticket, request.owner, client.client.host, client.transport)
    allocator.elsewhere.fetch_allocation(shown, arrived)


def _follow(allocator: Allocator, request: Request) -> None:
    """Have the client's connection go on at the worker that keeps its allocation.

    One for TCP (RFC 6062) has connections that others pass on; its client sends a few messages
    over its own. That worker is the one to answer this one.
    """

    def led(found: PeerStream | int) -> None:
        if isinstance(found, int) or request.waiting is None:
            request.answer(StunError(508))
        else:
            request.waiting.arrive(b"", found)

    ticket = request.message.get(registry.MOBILITY_TICKET) or b""
    allocator.elsewhere.follow(ticket, request.client, request.message.raw, led)


def _check_still(allocator: Allocator, request: Request) -> None:
    """See that a client may still have what it was waiting for.

    :raises StunError: 437, it did not wait for the answer; 403, as ``Allocator.check_still``.
    """
    if allocator.table.get(request.client) is not None:
        raise StunError(437)
    allocator.check_still(request.owner, request.now.wall)


def shown_elsewhere(allocator: Allocator, shown: Shown, now: float) -> Allocation:
    """The allocation of a ticket that a client shows to another worker.

    :raises StunError: as ``holder``.
    """
    allocation = allocator.of_ticket(shown.ticket)
    if allocation is None:
        raise StunError(400)
    if allocation.expires <= now:
        raise StunError(437)
    if not _may_have(allocation, shown.owner, shown.transport.is_encrypted):
        raise StunError(441)
    if allocation.is_tcp and not shown.transport.is_stream:
        raise StunError(400)
    return allocation


def move(allocator: Allocator, request: Request, allocation: Allocation) -> Attributes:
    """Go on with an allocation where the Refresh came from; gives the next ticket.

    :raises StunError: 486, the new address has its share of allocations.
    """
    if allocation.client != request.client:  # else it has come from another worker
        allocator.move(allocation, request.client, request.send, request.now.monotonic)
    return ((registry.MOBILITY_TICKET, allocator.issue_ticket(allocation)),)
