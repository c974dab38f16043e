"""A request on its way through the steps, and the questions that several methods ask of it."""

from collections.abc import Callable
from functools import lru_cache

from turn.allocation.allocator import Allocator
from turn.allocation.connections import PeerStream
from turn.allocation.model import Allocation, Owner
from turn.auth.authenticate import Now
from turn.auth.proved import Identity
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import Message
from turn.codec.registry import Attributes
from turn.codec.values import Address, family_of
from turn.routes import FiveTuple, Send

Outcome = Attributes | StunError

MOST_UNKNOWN = 64
"""What a 420 lists at most, so that it fits into any network's datagrams (RFC 8489 §6.1)."""


class Waiting:
    """A connection that goes on when the reply is there: what follows depends on what it says."""

    __slots__ = ("_reply", "_tell")

    def __init__(self) -> None:
        self._reply: tuple[bytes, PeerStream | None] | None = None
        self._tell: Callable[[bytes, PeerStream | None], None] | None = None

    def arrive(self, reply: bytes, stream: PeerStream | None) -> None:
        """The reply is there (empty: somebody else gives it), and what comes after it."""
        self._reply = reply, stream
        if self._tell is not None:
            self._tell(reply, stream)

    def tell(self, told: Callable[[bytes, PeerStream | None], None]) -> None:
        """Tell the transport, now or later."""
        self._tell = told
        if self._reply is not None:
            told(*self._reply)


class Request:
    """A request: what it says, where it came from, and what is found out about it."""

    def __init__(
        self,
        message: Message,
        client: FiveTuple,
        send: Send,
        now: Now,
        answer: Callable[["Request", Outcome], None],
    ) -> None:
        self.message = message
        self.client = client
        self.send = send
        self.now = now
        self._answer = answer
        self.identity: Identity | None = None
        """Set once authenticated."""
        self.stream: PeerStream | None = None
        """What the client's connection carries from now on (ConnectionBind)."""
        self.waiting: Waiting | None = None
        """Set where the reply is still to come, and the rest of the connection waits for it."""
        self.origin: Address | None = None
        """Which of our addresses the reply has to leave from, if not the one that was asked."""
        self.destination: Address | None = None
        """Where the reply has to go, if not to where the request came from."""

    def answer(self, outcome: Outcome) -> None:
        """Send the reply, for a method that could not answer at once."""
        self._answer(self, outcome)

    @property
    def proved(self) -> Identity:
        """The identity of a request that passed authentication."""
        if self.identity is None:
            raise StunError(401)
        return self.identity

    @property
    def owner(self) -> Owner:
        """Whose what it begins is, and what it asks for has to be."""
        proved = self.proved
        return _owner(proved.username, proved.user, proved.tenant)


@lru_cache(maxsize=1024)
def _owner(username: str, user: str, tenant: str) -> Owner:
    """One for all allocations of a user."""
    return Owner(username, user, tenant)


def allocation_of(allocator: Allocator, request: Request) -> Allocation:
    """The live allocation that a request is about. :raises StunError: 437, 441."""
    now = request.now.monotonic
    allocation = allocator.table.get(request.client)
    if allocation is None:
        raise StunError(437)
    ends = [relayed.expires for relayed in allocation.relayed.values()]
    if max(ends) <= now:
        raise StunError(437)
    if allocation.owner.username != request.proved.username:
        raise StunError(441)
    if len(ends) > 1 and min(ends) <= now:
        allocator.expire_parts(allocation, now)  # of two, one is over and not swept up yet
    return allocation


def check_family(allocation: Allocation, peer: Address) -> None:
    """See that an allocation relays in the peer's family. :raises StunError: 443."""
    if family_of(peer) not in allocation.relayed:
        raise StunError(443)


def unknown_attributes(numbers: tuple[int, ...]) -> StunError:
    """The refusal of a request that has comprehension-required attributes unknown to us."""
    return StunError(420, attributes=((registry.UNKNOWN_ATTRIBUTES, numbers[:MOST_UNKNOWN]),))
