"""Events that wait for the Python client's application: bounded, and what is not kept is told.

The client goes on reading its socket whatever the application does, because answers come by the
same one: an application that waits for an answer while its events pile up would wait for ever.
"""

import asyncio
from collections import deque
from typing import Any

MOST_EVENTS = 1024
MOST_BYTES = 8 << 20
"""Of the text frames that they came in."""


class Unread:
    """A queue in order; where it was full it has one ``{"type": "lost", "count": N}``.

    While it is held, what comes waits behind what ``release`` is given.
    """

    def __init__(self, most_events: int = MOST_EVENTS, most_bytes: int = MOST_BYTES) -> None:
        self._limits = most_events, most_bytes
        self._events: deque[tuple[dict[str, Any], int]] = deque()
        self._held: deque[tuple[dict[str, Any], int]] | None = None
        self._bytes = 0
        self._ended = False
        self._more = asyncio.Event()

    def put(self, event: dict[str, Any], size: int = 0) -> None:
        """Keep an event, or count it as lost. :param size: of its text frame, in bytes."""
        most_events, most_bytes = self._limits
        events = self._events if self._held is None else self._held
        full = len(events) >= most_events or self._bytes + size > most_bytes
        if not full:
            events.append((event, size))
            self._bytes += size
        elif events and events[-1][0]["type"] == "lost":
            events[-1][0]["count"] += 1
        else:
            events.append(({"type": "lost", "count": 1}, 0))
        self._more.set()

    def hold(self) -> None:
        """Have what comes from now on wait; of what is held already, presence is of the past."""
        kept = deque(each for each in self._held or () if each[0]["type"] != "peer")
        self._bytes -= sum(size for _, size in self._held or ()) - sum(size for _, size in kept)
        self._held = kept

    def release(self, first: dict[str, Any]) -> None:
        """Go on with an event, whatever the limits, and then with what was held."""
        held, self._held = self._held or deque(), None
        self._events.append((first, 0))
        self._events += held
        self._more.set()

    def end(self) -> None:
        """Nothing comes any more; what is here can still be taken."""
        self._ended = True
        if self._held is not None:
            self._events += self._held
            self._held = None
        self._more.set()

    async def get(self) -> dict[str, Any] | None:
        """Take the next event, once there is one; None: it was the last."""
        while not self._events:
            if self._ended:
                return None
            self._more.clear()
            await self._more.wait()
        event, size = self._events.popleft()
        self._bytes -= size
        return event
