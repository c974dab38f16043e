"""What a back end has not been told of yet, and the queue of a process that keeps it to itself."""

import heapq
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

MOST_WAITING = 10_000
"""Events; the last is the news that more happened, which is not kept until half have gone."""
LOST = "events.lost"


class Queued(NamedTuple):
    """What happened, and a webhook has not been told of yet."""

    id: str
    """The same however often it is tried."""
    tries: int
    """This one counted."""
    event: bytes
    """JSON: ``type``, ``at`` (Unix time in ms), ``data``."""


Kept = tuple[str, int, str]
"""Id, tries, event."""


class Away(Exception):
    """The queue cannot be reached."""


class Queue(Protocol):
    """Keeps events until they are told. Each method may raise ``Away``."""

    async def take_events(self, most: int, lease: float) -> list[Queued]:
        """Those that are due; they are again after ``lease`` seconds."""

    async def end_events(self, ids: Sequence[str]) -> None:
        """They are delivered, or given up."""

    async def retry_event(self, event_id: str, delay: float) -> None:
        """Have one due again in so many seconds."""


class WaitingEvents:
    """A queue in which events become due again unless they are ended."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        nowhere: Mapping[str, object] | None = None,
    ) -> None:
        """Begin. :param nowhere: what ``events.lost`` brings."""
        self._clock = clock
        self._nowhere = nowhere or {}
        self._due: list[tuple[float, str]] = []
        self._events: dict[str, tuple[int, float, bytes]] = {}
        """id → tries, when it is due (another time in ``_due`` is of the past), event."""
        self._run = secrets.token_hex(4)
        self._count = 0
        self._losing = False

    def __len__(self) -> int:
        return len(self._events)

    def note(self, kind: str, /, **data: object) -> None:
        """Something has happened."""
        waiting = len(self._events)
        self._losing = self._losing and 2 * waiting >= MOST_WAITING
        if self._losing:
            return
        if waiting >= MOST_WAITING - 1:
            self._losing, kind, data = True, LOST, dict(self._nowhere)
        self._count += 1
        at = int(time.time() * 1000)
        event = msgspec.json.encode({"type": kind, "at": at, "data": data})
        # The ids of one run sort as its events came, like those of signaling's ``note`` in Lua.
        self._put(f"{self._run}-{self._count:012}", 0, self._clock(), event)

    def take(self, most: int, lease: float) -> list[Queued]:
        """Those that are due; they are again after ``lease`` seconds."""
        now = self._clock()
        taken: list[Queued] = []
        while self._due and self._due[0][0] <= now and len(taken) < most:
            due, event_id = heapq.heappop(self._due)
            tries, is_due, event = self._events.get(event_id, (0, 0.0, b""))
            if is_due == due:
                self._put(event_id, tries + 1, now + lease, event)
                taken.append(Queued(event_id, tries + 1, event))
        return taken

    def end(self, ids: Sequence[str]) -> None:
        """They are delivered, or given up."""
        for event_id in ids:
            self._events.pop(event_id, None)

    def dump(self) -> list[Kept]:
        """All that waits, in order, for another process to tell."""
        return [(name, tries, event.decode()) for name, (tries, _, event) in self._events.items()]

    def load(self, kept: Iterable[Kept]) -> None:
        """Take in what another process has dumped; it is due now."""
        for event_id, tries, event in kept:
            self._put(event_id, tries, self._clock(), event.encode())

    def clear(self) -> None:
        """Nobody is to be told any more."""
        self._events.clear()
        self._due.clear()

    def retry(self, event_id: str, delay: float) -> None:
        """Have it due in so many seconds."""
        if event_id in self._events:
            tries, _, event = self._events[event_id]
            self._put(event_id, tries, self._clock() + delay, event)

    def _put(self, event_id: str, tries: int, due: float, event: bytes) -> None:
        self._events[event_id] = tries, due, event
        heapq.heappush(self._due, (due, event_id))
