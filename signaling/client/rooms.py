"""The rooms that an application is in, whatever becomes of the session, and what is told of them.

In a new session the rooms are joined again before anything is told or sent that came after:
``restarted``, with the new rosters, stands before what changes them.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import structlog

from signaling.client.connection import Connection
from signaling.client.errors import SignalingError
from signaling.client.unread import Unread

log = structlog.get_logger("signaling.client")

BeforeRejoin = Callable[[str], Awaitable[None]]
"""Called with the new peer id."""


class Rooms:
    """Remembers them, and joins them again (``connection.Hears``)."""

    def __init__(self, before_rejoin: BeforeRejoin | None) -> None:
        """In none. :param before_rejoin: called before a new session joins them again."""
        self.unread = Unread()
        """What the application is to be told."""
        self._before_rejoin = before_rejoin
        self._metas: dict[str, Any] = {}
        self._restarts = 0
        self._rejoining: asyncio.Task[None] | None = None
        self._there = asyncio.Event()
        """Not set from the beginning of another session until its rooms are joined again."""
        self._there.set()

    def remember(self, room: str, meta: Any) -> None:
        """We are in it."""
        self._metas[room] = meta

    def forget(self, room: str) -> None:
        """We do not want to be in it any more."""
        self._metas.pop(room, None)

    async def wait(self) -> None:
        """Until we are in them: what is sent before would reach nobody."""
        if asyncio.current_task() is not self._rejoining:  # before_rejoin may not wait for itself
            await self._there.wait()

    # What is heard -------------------------------------------------------------------------

    def event(self, message: dict[str, Any], size: int = 0) -> None:
        """Keep it for the application."""
        self.unread.put(message, size)

    def resumed(self) -> None:
        """Tell that nothing was lost."""
        self.unread.put({"type": "resumed"})

    def restarted(self, connection: Connection) -> None:
        """Join again; what comes now is told after the roster that it changes."""
        self.unread.hold()
        self._there.clear()
        self._restarts += 1
        connection.later(0, partial(self._rejoin, connection, self._restarts))

    def ended(self) -> None:
        """Let everyone go on who waits."""
        self._there.set()
        self.unread.end()

    async def _rejoin(self, connection: Connection, number: int) -> None:
        """Join our rooms in a new session. :param number: which one; a later one has its own."""
        self._rejoining = asyncio.current_task()
        if self._before_rejoin is not None:
            try:
                await self._before_rejoin(connection.peer)
            except Exception:  # the application's; the rooms are joined whatever it does
                log.exception("before_rejoin failed")
        joined = []
        for room, meta in list(self._metas.items()):
            with contextlib.suppress(SignalingError):
                joined.append(
                    await connection.request({"type": "join", "room": room, "meta": meta})
                )
        if number == self._restarts:
            self.unread.release({"type": "restarted", "joined": joined})
            self._there.set()
