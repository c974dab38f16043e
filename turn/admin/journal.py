"""What happened lately: kept in bounds, by reason where something was refused, and told live."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from msgspec import Struct

from turn.telling import Tell, Told, facts_of

MOST_KEPT = 512
MOST_REASONS = 64
MOST_OF_A_REASON = 32
MOST_WAITING = 256
"""Events that wait for a watcher who reads slowly; the oldest make room, and are counted."""
OF_THE_PROCESS = ("operator", "log")
"""Kinds of events that no service tells of: what an operator does, what the log warns of."""
REFUSALS = frozenset({"request_refused", "session_refused", "message_refused"})


class Event(Struct, frozen=True):
    """Something that happened."""

    number: int
    """1, 2, 3, … of this process."""
    time: str
    """RFC 3339."""
    kind: str
    facts: dict[str, Any]


class Watcher:
    """Whoever hears of events as they happen, from a queue of its own."""

    def __init__(self, missed: list[Event]) -> None:
        self._waiting = deque(missed, MOST_WAITING)
        self._lost = 0
        self._wake = asyncio.Event()
        if missed:
            self._wake.set()

    def put(self, event: Event) -> None:
        """Queue an event."""
        self._lost += len(self._waiting) == MOST_WAITING
        self._waiting.append(event)
        self._wake.set()

    def wake(self) -> None:
        """Have ``get`` return."""
        self._wake.set()

    async def get(self, patience: float) -> tuple[list[Event], int]:
        """What waits, and how many were lost before it; nothing after ``patience`` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._wake.wait()
        except TimeoutError:
            return [], 0
        self._wake.clear()
        events, lost = list(self._waiting), self._lost
        self._waiting.clear()
        self._lost = 0
        return events, lost


class Journal:
    """Keeps the last events, and the last refusals of each reason. Costs nothing while off."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._number = 0
        self._recent: deque[Event] = deque(maxlen=MOST_KEPT)
        self._refusals: dict[str, deque[Event]] = {}
        self._errors: deque[Event] = deque(maxlen=MOST_OF_A_REASON)
        self._watchers: set[Watcher] = set()
        self._on = False

    @property
    def on(self) -> bool:
        """Whether anybody may ask for it."""
        return self._on

    def switch(self, *, on: bool) -> None:
        """Begin to keep events, or forget them all and let the watchers go."""
        self._on = on
        if not on:
            self._recent.clear()
            self._refusals.clear()
            self._errors.clear()
            for watcher in self._watchers:
                watcher.wake()

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    def tell(self, kind: str, told: Told) -> None:
        """Take an event in."""
        if not self._on:
            return
        self._number += 1
        event = Event(self._number, rfc3339(self._clock()), kind, dict(facts_of(told)))
        self._recent.append(event)
        if kind in REFUSALS:
            self._keep_refusal(event)
        elif kind == "log":
            self._errors.append(event)
        for watcher in self._watchers:
            watcher.put(event)

    def refusals(self) -> list[Event]:
        """The last refusals of every reason, the newest first."""
        found = chain.from_iterable(self._refusals.values())
        return sorted(found, key=lambda event: event.number, reverse=True)

    def errors(self) -> list[Event]:
        """The last warnings and errors of the log, the newest first."""
        return list(reversed(self._errors))

    @contextmanager
    def watch(self, after: int | None) -> Iterator[Watcher]:
        """Hear of everything from now on, or from after the event of that number."""
        missed = [event for event in self._recent if after is not None and event.number > after]
        watcher = Watcher(missed)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def _keep_refusal(self, event: Event) -> None:
        reason = str(event.facts.get("code", ""))
        if reason not in self._refusals and len(self._refusals) >= MOST_REASONS:
            return
        self._refusals.setdefault(reason, deque(maxlen=MOST_OF_A_REASON)).append(event)


class JournalHandler(logging.Handler):
    """Takes warnings and errors of the log into the journal."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Take one; what another thread logs is for the log alone."""
        if threading.current_thread() is not threading.main_thread():
            return
        # structlog hands its event over as a dict, and the rest of it as that dict's items.
        if isinstance(record.msg, dict):
            told = {name: str(value) for name, value in record.msg.items() if name not in META}
            text = str(record.msg.get("event", ""))
        else:
            told, text = {}, record.getMessage()
        facts = {"level": record.levelname.lower(), "logger": record.name, "text": text, **told}
        self._tell("log", facts)


META = frozenset({"event", "level", "logger", "timestamp", "exc_info", "stack_info"})


def rfc3339(unix: float) -> str:
    """A time as people and machines read it, UTC, in milliseconds."""
    text = datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
