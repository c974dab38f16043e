"""What a data plane beside user space is to the relay, and the one that does nothing."""

import asyncio
from collections import Counter
from typing import Protocol

from turn.codec.values import Address
from turn.routes import NOTHING, Carried, FiveTuple, Route, RouteObserver
from turn.stats import DropReason

HELD = "another process has"
"""How the reason begins where another relay writes the routes already."""


class Unavailable(Exception):
    """The kernel cannot carry packets here; the message says why, and what would help."""


class Plane(RouteObserver, Protocol):
    """A data plane that takes what routes it can; user space carries the rest."""

    @property
    def name(self) -> str:
        """``kernel`` or ``userspace``: what carries packets where it can."""

    @property
    def reason(self) -> str:
        """Why it is this plane, or where it works: one line, for people."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow the machine's devices, routes and neighbours."""

    def inherited(self) -> list[tuple[FiveTuple, Address]]:
        """Clients and peers between whom indications go by this plane since before this process."""

    def restored(self) -> None:
        """Every route that an earlier process has left is written again: clean up the rest."""

    def stop(self) -> None:
        """Take everything out of the kernel again."""

    def leave(self) -> None:
        """Stop, but let packets go on; another process will take over."""

    def carried(self) -> Carried:
        """What went by this plane since it began."""

    def dropped(self) -> Counter[DropReason]:
        """Packets that ended in this plane, by why."""


class NullPlane:
    """No plane: every packet goes through user space."""

    name = "userspace"

    def __init__(self, reason: str) -> None:
        self._reason = reason

    @property
    def reason(self) -> str:
        """Why there is none."""
        return self._reason

    def added(self, route: Route) -> None:
        """Nothing."""

    def refreshed(self, route: Route) -> None:
        """Nothing."""

    def removed(self, route: Route) -> None:
        """Nothing."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing."""

    def inherited(self) -> list[tuple[FiveTuple, Address]]:
        """Nobody."""
        return []

    def restored(self) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def leave(self) -> None:
        """Nothing."""

    def carried(self) -> Carried:
        """Nothing."""
        return NOTHING

    def dropped(self) -> Counter[DropReason]:
        """Nothing."""
        return Counter()

    def carried_by(self, route: Route) -> Carried:
        """Nothing."""
        return NOTHING
