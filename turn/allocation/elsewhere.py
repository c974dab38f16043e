"""Ports that another worker holds: the client that has the token came to this one."""

from collections.abc import Callable
from typing import Protocol

from turn.allocation.model import Owner, Relay

Fetched = Callable[[Relay | None], None]
"""Told of a port that is ours from now on; None: it was not to be had."""


class Elsewhere(Protocol):
    """The other workers."""

    def holds(self, token: bytes) -> bool:
        """Whether one of them made this token."""

    def fetch(self, token: bytes, owner: Owner, done: Fetched) -> None:
        """Have the port that a token stands for handed over. ``done`` is called later, once."""


class Nowhere:
    """There are no other workers."""

    def holds(self, token: bytes) -> bool:
        """Nobody did."""
        return False

    def fetch(self, token: bytes, owner: Owner, done: Fetched) -> None:
        """There is nothing to fetch."""
        done(None)


NOWHERE = Nowhere()
