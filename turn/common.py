"""What a relay has in common with others that share its addresses; alone, it has it to itself."""

import secrets
from collections.abc import Callable, Iterator
from typing import NamedTuple

from turn.allocation.books import Books, OwnBooks
from turn.allocation.elsewhere import NOWHERE, Elsewhere
from turn.relay.shelf import NO_SHELF, Shelf, kept
from turn.revoked import RevokedFile
from turn.transport.addresses import local_addresses
from turn.transport.bind import bind_tcp, bind_udp
from turn.transport.limits import Cells, OwnPlaces, Places
from turn.transport.listeners import Bind


class Common(NamedTuple):
    """What ``TurnService`` does not make by itself."""

    key: bytes
    """Makes nonces where there is no secret: what one worker asks, another one recognises."""
    books: Books
    replies: Cells
    bindings: Cells
    handshakes: Cells
    strangers: Places
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    """Makes tokens. What a worker makes begins with its number, so that the others know whose
    it is."""
    numbers: Iterator[int] | None = None
    """What allocations are called by; None: from 1."""
    elsewhere: Elsewhere = NOWHERE
    bind: Bind = Bind()
    addresses: Callable[[], list[str]] = local_addresses
    """The machine's."""
    shelf: Shelf = NO_SHELF
    """Where its sockets outlive it."""
    revoked: RevokedFile | None = None
    """Where revocations outlive it; None: somebody else tells it of them again."""
    watches: bool = True
    """Whether it finds out by itself when they change, or is told (``follow_addresses``)."""


def alone(shelf: Shelf = NO_SHELF, revoked: RevokedFile | None = None) -> Common:
    """What a relay has that is the only one of its addresses."""
    bind = Bind(kept(shelf, "udp", bind_udp), kept(shelf, "tcp", bind_tcp))
    cells = Cells.own(), Cells.own(), Cells.own()
    return Common(
        secrets.token_bytes(32), OwnBooks(), *cells, OwnPlaces(),
        bind=bind, shelf=shelf, revoked=revoked,
    )  # fmt: skip
