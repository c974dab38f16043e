"""What a data plane beside user space is to the relay, and the one that does nothing."""

import asyncio
from typing import NamedTuple, Protocol

from turn.routes import Route, RouteObserver


class Unavailable(Exception):
    """The kernel cannot carry packets here; the message says why, and what would help."""


class Carried(NamedTuple):
    """What a plane has relayed since it began; bytes are payload."""

    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    spoiled_packets: int = 0
    """Lost half way: a function of the kernel's failed."""


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
        """What went by this plane."""


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
        return Carried()
