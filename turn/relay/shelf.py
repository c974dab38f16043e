"""Where sockets are kept while no relay has them: by whoever supervises the service, or nobody.

What comes to a socket meanwhile waits in its buffer, and nobody else gets its port.
"""

import socket
from collections.abc import Callable
from typing import Protocol

Open = Callable[[str, int], socket.socket]


class Shelf(Protocol):
    """Keeps sockets by name, and gives back those of the process before."""

    def take(self, name: str) -> socket.socket | None:
        """A socket that was put there by an earlier process; it stays there, too."""

    def put(self, name: str, sock: socket.socket) -> None:
        """Keep a socket from now on."""

    def drop(self, name: str) -> None:
        """Keep it no more."""

    def clean(self) -> None:
        """Drop what was there before and has not been taken."""

    def retry(self) -> None:
        """Drop what could not be dropped; to be called about once a second."""


class NoShelf:
    """Sockets end with the process."""

    def take(self, name: str) -> socket.socket | None:
        """There is none."""
        return None

    def put(self, name: str, sock: socket.socket) -> None:
        """Nothing."""

    def drop(self, name: str) -> None:
        """Nothing."""

    def clean(self) -> None:
        """Nothing."""

    def retry(self) -> None:
        """Nothing."""


NO_SHELF = NoShelf()


def name_of(kind: str, host: str, port: int) -> str:
    """A name for the socket of an address; no colon, which has a meaning where it is kept."""
    return f"{kind}-{host.replace(':', '_')}-{port}"


def kept(shelf: Shelf, kind: str, fresh: Open) -> Open:
    """Opens sockets as ``fresh`` does, unless the shelf has one for the place."""

    def opened(host: str, port: int) -> socket.socket:
        name = name_of(kind, host, port)
        sock = shelf.take(name)
        if sock is None:
            sock = fresh(host, port)
            shelf.put(name, sock)
        return sock

    return opened
