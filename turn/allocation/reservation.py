"""A reserved port whose client came to another worker than the one that holds it.

The port moves to the client's worker, not the client's packets to the port's: once it is here,
nothing about the allocation is different from any other.
"""

from collections.abc import Callable

from turn.allocation.allocator import Allocator
from turn.allocation.model import Owner, Relay
from turn.allocation.request import Request
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.registry import Attributes

Begin = Callable[[list[Relay]], Attributes]

ALONE = (
    registry.EVEN_PORT,
    registry.REQUESTED_ADDRESS_FAMILY,
    registry.ADDITIONAL_ADDRESS_FAMILY,
)
"""What may not come with a RESERVATION-TOKEN (RFC 8656 §7.2)."""


def is_elsewhere(allocator: Allocator, request: Request) -> bool:
    """Whether an Allocate shows the token of another worker, and nothing that forbids it."""
    token = request.message.get(registry.RESERVATION_TOKEN)
    if token is None or any(request.message.has(each) for each in ALONE):
        return False
    return allocator.elsewhere.holds(token)


def fetch(allocator: Allocator, request: Request, owner: Owner, begin: Begin) -> None:
    """Have the port handed over, and answer then."""

    def arrived(relay: Relay | None) -> None:
        if relay is None:
            request.answer(StunError(508))
        elif allocator.table.get(request.client) is not None:  # it did not wait for the answer
            relay.close()
            request.answer(StunError(437))
        else:
            try:
                request.answer(begin([relay]))
            except StunError as error:
                relay.close()
                request.answer(error)

    token = request.message.get(registry.RESERVATION_TOKEN) or b""
    allocator.elsewhere.fetch(token, owner, arrived)
