"""The kernel plane of a relay that is lent it: it goes with whoever lends it, and comes again.

Each loader that starts afresh has maps of its own. So whatever is live is announced to a plane of
the new maps as it was to the first one; until there is one, user space carries.
"""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from turn.codec.values import Address
from turn.kernel.carrier import GONE, KernelPlane
from turn.kernel.plane import NullPlane, Unavailable
from turn.routes import NOTHING, Carried, FiveTuple, Route
from turn.stats import DropReason

log = structlog.get_logger("turn")

LOOK = 1.0
"""Seconds between looks at who lends the program."""


class BorrowedPlane:
    """One kernel plane after the other, with the face of one (``plane.Plane``)."""

    def __init__(self, first: KernelPlane | NullPlane, borrow: Callable[[], KernelPlane]) -> None:
        """Begin with the first one, or with none as yet.

        :param borrow: the plane of what is lent now; raises ``Unavailable``.
        """
        self._plane = first
        self._borrow = borrow
        self._routes: dict[Route, Carried] = {}
        """Every live route, and what the planes before this one have carried of it."""
        self._carried = NOTHING
        self._dropped: Counter[DropReason] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """Who carries."""
        return self._plane.name

    @property
    def reason(self) -> str:
        """Where it works, or why it does not."""
        return self._plane.reason

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow the machine, and who lends the program."""
        self._loop = loop
        self._plane.start(loop)
        self._timer = loop.call_later(LOOK, self._look)

    def inherited(self) -> list[tuple[FiveTuple, Address]]:
        """Clients and peers between whom indications go by the kernel since before this process."""
        return self._plane.inherited()

    def restored(self) -> None:
        """Every route that an earlier process has left is written again: clean up the rest."""
        self._plane.restored()

    def stop(self) -> None:
        """Take everything out of the kernel again."""
        self._end()
        self._plane.stop()

    def leave(self) -> None:
        """Let packets go on; another process will find them in the maps."""
        self._end()
        self._plane.leave()

    # Routes ----------------------------------------------------------------------------------

    def added(self, route: Route) -> None:
        """Write a route."""
        self._routes[route] = NOTHING
        self._plane.added(route)

    def refreshed(self, route: Route) -> None:
        """Move the end of a route."""
        self._plane.refreshed(route)

    def removed(self, route: Route) -> None:
        """Close a route."""
        self._routes.pop(route, None)
        self._plane.removed(route)

    def carried(self) -> Carried:
        """What went by all of them."""
        return self._carried.plus(self._plane.carried())

    def carried_by(self, route: Route) -> Carried:
        """What went by all of them on one route."""
        return self._routes.get(route, NOTHING).plus(self._plane.carried_by(route))

    def dropped(self) -> Counter[DropReason]:
        """Packets that ended in the kernel, by why."""
        return self._dropped + self._plane.dropped()

    # Who lends it ----------------------------------------------------------------------------

    def _look(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(LOOK, self._look)
        if isinstance(self._plane, KernelPlane) and self._plane.is_gone:
            self._let_go(self._plane)
        if isinstance(self._plane, NullPlane):
            self._begin_again(self._loop)

    def _let_go(self, plane: KernelPlane) -> None:
        """Have user space carry everything, by its own buckets again."""
        for route, before in self._routes.items():
            self._routes[route] = before.plus(plane.carried_by(route))
        self._carried = self._carried.plus(plane.carried())
        self._dropped += plane.dropped()
        plane.stop()
        self._plane = NullPlane(GONE)
        log.warning("data plane", plane=self.name, reason=GONE)

    def _begin_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """Announce every route to what is lent now, if anything is."""
        try:
            plane = self._borrow()
        except Unavailable:
            return  # none yet, or not for us yet
        self._plane = plane
        plane.restored()
        plane.start(loop)
        for route in self._routes:
            plane.added(route)
        log.info("data plane", plane=self.name, reason=self.reason, routes=len(self._routes))

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
