"""What a data plane beside user space is to the relay, and the one that does nothing."""

import asyncio
from typing import Protocol

from turn.routes import Carried, Route, RouteObserver

NOTHING = Carried()


class Unavailable(Exception):
    """The kernel cannot carry packets here; the message says why, and what would help."""


class Plane(RouteObserver, Protocol):
    """A data plane that takes what routes it can; user space carries the rest."""

    name: str
    """``kernel`` or ``userspace``: what carries packets where it can."""

    @property
    def reason(self) -> str:
        """Why it is this plane, or where it works: one line, for people."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow the machine's devices, routes and neighbours."""

    def stop(self) -> None:
        """Take everything out of the kernel again."""

    def carried(self) -> Carried:
        """What went by this plane since it began."""


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

    def stop(self) -> None:
        """Nothing."""

    def carried(self) -> Carried:
        """Nothing."""
        return NOTHING

    def carried_by(self, route: Route) -> Carried:
        """Nothing."""
        return NOTHING
