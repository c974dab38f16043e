"""TCP allocations: the connections between a relayed address and its peers (RFC 6062).

A connection is begun by the client (Connect) or by a peer; either way the client then claims it
with ConnectionBind over a connection of its own, and from then on bytes pass as they are.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

from turn.allocation.model import Allocation, Owner
from turn.bandwidth import Budgets
from turn.codec.errors import StunError
from turn.codec.values import Address
from turn.routes import Endpoint

CLAIM_TIMEOUT = 30.0
"""Seconds that a connection waits for its ConnectionBind (RFC 6062 §5.2, §5.3)."""


class PeerStream(Protocol):
    """A TCP connection with a peer; it reads nothing before the client has claimed it."""

    on_end: Callable[[], None]
    """Called once the connection is over."""
    sending: Budgets | None
    receiving: Budgets | None
    tenant: str
    """Whose user's it is; "": no tenant's."""

    def abort(self) -> None:
        """End it, with whatever is under way."""


class Claimant(NamedTuple):
    """Who shows a CONNECTION-ID."""

    owner: Owner
    host: str
    """Where its connection comes from: not always where its allocation's does."""


Connected = Callable[[PeerStream | None, float], None]
"""Told how an attempt to connect ended, None: it failed; and the monotonic time."""


class Dialer(Protocol):
    """A relayed address of a TCP allocation."""

    def connect(self, peer: Endpoint, done: Connected) -> None:
        """Connect to a peer from this address. ``done`` is not called after ``close``."""


class Connection:
    """One connection with a peer, by its CONNECTION-ID."""

    __slots__ = ("allocation", "claimed", "expires", "host", "number", "peer", "stream")

    def __init__(self, number: int, allocation: Allocation, peer: Address) -> None:
        self.number = number
        self.allocation = allocation
        self.peer = peer
        self.stream: PeerStream | None = None
        """None while the connection is being made."""
        self.claimed = False
        self.host = ""
        """Of the client's half, once it is claimed."""
        self.expires = float("inf")


class Connections:
    """All connections of TCP allocations, and whose they are."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._by_number: dict[int, Connection] = {}
        self._of: dict[Allocation, dict[Address, Connection]] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def of(self, allocation: Allocation) -> Collection[Address]:
        """The peers that an allocation is connected with, or about to be."""
        return self._of.get(allocation, {}).keys()

    def allocation_of(self, number: int | None) -> Allocation | None:
        """Whose connection has this CONNECTION-ID."""
        connection = None if number is None else self._by_number.get(number)
        return connection.allocation if connection else None

    def begin(self, allocation: Allocation, peer: Address) -> Connection:
        """Make room for a connection with a peer that has none."""
        number = 0
        while not number or number in self._by_number:
            number = int.from_bytes(self._random_bytes(4))
        connection = Connection(number, allocation, peer)
        self._by_number[number] = connection
        self._of.setdefault(allocation, {})[peer] = connection
        return connection

    def open(self, connection: Connection, stream: PeerStream, now: float) -> None:
        """The connection is made; the client has half a minute to claim it."""
        ends = next(iter(connection.allocation.relayed.values())).ends
        stream.sending, stream.receiving = ends.sending, ends.receiving
        stream.tenant = connection.allocation.owner.tenant
        stream.on_end = lambda: self.drop(connection)
        connection.stream = stream
        connection.expires = now + CLAIM_TIMEOUT

    def claim(self, number: int, claimant: Claimant) -> PeerStream:
        """Hand a connection to its client.

        :raises StunError: 400 where there is no such connection to be had, 441 to another user.
        """
        connection = self._by_number.get(number)
        if connection is None or connection.stream is None or connection.claimed:
            raise StunError(400)
        if not connection.allocation.is_held_by(claimant.owner):
            raise StunError(441)
        connection.claimed = True
        connection.host = claimant.host
        connection.expires = float("inf")
        return connection.stream

    def lend(
        self, number: int, claimant: Claimant, far: PeerStream
    ) -> tuple[Allocation, PeerStream]:
        """Hand a connection to its client at another worker; it counts here until ``far`` ends.

        :param far: what ends it there.
        :returns: whose it is, and what that worker is to have.
        :raises StunError: as ``claim``.
        """
        stream = self.claim(number, claimant)
        connection = self._by_number[number]
        connection.stream = far
        far.on_end = lambda: self.drop(connection)
        return connection.allocation, stream

    def drop(self, connection: Connection) -> None:
        """Forget a connection that is over, or was not made."""
        if self._by_number.pop(connection.number, None) is None:
            return
        if (
            connection.stream is not None
        ):  # each would lead to the other, and wait for the collector
            connection.stream.on_end = _nothing
        peers = self._of[connection.allocation]
        del peers[connection.peer]
        if not peers:
            del self._of[connection.allocation]

    def close_all(self, allocation: Allocation) -> None:
        """End every connection of an allocation (RFC 6062 §5.5)."""
        for connection in list(self._of.get(allocation, {}).values()):
            self._end(connection)

    def close_where(self, over: Callable[[Connection], bool]) -> None:
        """End all such connections."""
        for connection in [each for each in self._by_number.values() if over(each)]:
            self._end(connection)

    def expire(self, now: float) -> None:
        """End the connections that nobody has claimed in time."""
        self.close_where(lambda connection: connection.expires <= now)

    def _end(self, connection: Connection) -> None:
        self.drop(connection)
        if connection.stream is not None:
            connection.stream.abort()


def _nothing() -> None:
    """There is nothing to forget any more."""
