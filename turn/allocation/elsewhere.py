"""What another worker holds, and its client came to this one: ports, allocations, connections."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from turn.allocation.connections import Claimant, PeerStream
from turn.allocation.model import Owner, Relay
from turn.allocation.record import Record
from turn.auth.third_party import Grant
from turn.codec.errors import StunError
from turn.routes import FiveTuple, Transport


class Moved(NamedTuple):
    """An allocation that this worker may go on with."""

    record: Record
    relays: Sequence[Relay]
    """Its relayed addresses, ours from now on."""


class Shown(NamedTuple):
    """A ticket that a client shows (RFC 8016), and who it is."""

    ticket: bytes
    owner: Owner
    host: str
    """The client's address now."""
    transport: Transport
    """Where it is shown: nobody on the way may see it, or anybody."""


Arrived = Callable[[Moved | int | None], None]
"""Told of an allocation, or of the error code of the reply; None: it stays where it is."""
Fetched = Callable[[Relay | None], None]
"""Told of a port that is ours from now on; None: it was not to be had."""
Lent = Callable[[PeerStream | int], None]
"""Told of a connection with a peer that this worker passes on for another one, or of the error code
of the reply."""


Granted = Callable[[Grant | None], None]
"""Told what a token gave to the holder of an allocation; None: it has none, or there is none."""


class Tickets(Protocol):
    """The same for allocations that clients take along (RFC 8016)."""

    def holds_ticket(self, ticket: bytes) -> bool:
        """Whether one of the other workers made this ticket."""

    def fetch_allocation(self, shown: Shown, done: Arrived) -> None:
        """Have an allocation handed over. ``done`` is called once."""

    def follow(self, ticket: bytes, client: FiveTuple, message: bytes, done: "Lent") -> None:
        """Let a client's connection go on where an allocation stays, with a message at first.

        :param done: told of what passes the connection's bytes on, once, and not at once.
        """


class Streams(Protocol):
    """The same for connections with peers (RFC 6062)."""

    def holds_connection(self, number: int) -> bool:
        """Whether one of the other workers made this CONNECTION-ID."""

    def fetch_grant(self, number: int, host: str, done: Granted) -> None:
        """Hear whose token's key protects the claim of a connection. ``done`` is called once.

        :param host: the client's, which has proved nothing yet.
        :raises StunError: 508, it waits for too many already.
        """

    def borrow_connection(self, number: int, claimant: Claimant, done: Lent) -> None:
        """Have a connection lent. ``done`` is called once, and not at once.

        :raises StunError: 508, the user waits for too many already.
        """


class Elsewhere(Tickets, Streams, Protocol):
    """The other workers."""

    def holds(self, token: bytes) -> bool:
        """Whether one of them made this token."""

    def fetch(self, token: bytes, owner: Owner, done: Fetched) -> None:
        """Have the port that a token stands for handed over. ``done`` is called once."""


class Nowhere:
    """There are no other workers."""

    def holds(self, token: bytes) -> bool:
        """Nobody did."""
        return False

    def fetch(self, token: bytes, owner: Owner, done: Fetched) -> None:
        """There is nothing to fetch."""
        done(None)

    def holds_ticket(self, ticket: bytes) -> bool:
        """Nobody did."""
        return False

    def fetch_allocation(self, shown: Shown, done: Arrived) -> None:
        """There is nothing to fetch."""
        done(400)

    def follow(self, ticket: bytes, client: FiveTuple, message: bytes, done: Lent) -> None:
        """There is nowhere to go."""

    def holds_connection(self, number: int) -> bool:
        """Nobody did."""
        return False

    def fetch_grant(self, number: int, host: str, done: Granted) -> None:
        """There is none."""
        done(None)

    def borrow_connection(self, number: int, claimant: Claimant, done: Lent) -> None:
        """There is nothing to borrow."""
        raise StunError(400)


NOWHERE = Nowhere()
