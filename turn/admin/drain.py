"""A drain by hand: begun, watched, taken back. The process lives until somebody ends it."""

import asyncio
import time
from collections.abc import Sequence

from msgspec import Struct

from turn.admin.service import Service


class DrainState(Struct, frozen=True):
    """How far a drain is."""

    draining: bool
    seconds_left: float
    """Until clients have had their time; nothing is closed then: stop the process to end it."""
    left: dict[str, int]
    """What still goes on: allocations, connections."""
    done: bool
    """Draining, and nothing is left."""


class Drain:
    """Drains all services of a process together."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._services = services
        self._deadline = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, seconds: float) -> DrainState:
        """Turn new work away, and tell clients to be elsewhere within ``seconds``."""
        self._cancel()
        self._deadline = time.monotonic() + seconds
        for service in self._services:
            task = asyncio.create_task(service.drain(seconds))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return self.state(draining=True)

    def resume(self) -> DrainState:
        """Take new work again."""
        self._cancel()
        for service in self._services:
            service.resume()
        return self.state()

    def state(self, *, draining: bool = False) -> DrainState:
        """How far it is."""
        draining = draining or any(service.draining for service in self._services)
        left: dict[str, int] = {}
        for service in self._services:
            left |= service.left()
        seconds = max(0.0, round(self._deadline - time.monotonic(), 1)) if draining else 0.0
        return DrainState(draining, seconds, left, draining and not any(left.values()))

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._cancel()

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
