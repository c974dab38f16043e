"""Sessions that are on their way to this node, and those that another one took meanwhile.

An answer and a wake-up come by two connections: what a session is sent, and the news that it was
taken from this node, may be here before the news that the node has it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from signaling.protocol.errors import CloseCode

Woken = list[tuple[int, bytes]]
"""The events, by their numbers, that wake-ups brought for a session before its answer."""


class Coming:
    """What is heard of sessions before the answer that they are attached here."""

    def __init__(self) -> None:
        self._resuming: dict[str, list[Woken]] = {}
        """One list an attempt."""
        self.doubtful: set[str] = set()
        """Sessions that may be ours without our knowing: the answer did not come."""
        self._expected: Counter[str] = Counter()
        self._cut: dict[tuple[str, str], CloseCode] = {}

    def __len__(self) -> int:
        return len(self._cut)

    @contextmanager
    def resuming(self, session: str) -> Iterator[Woken]:
        """While a session is taken over; gives what comes for it meanwhile."""
        woken: Woken = []
        self._resuming.setdefault(session, []).append(woken)
        try:
            with self.expecting(session):
                yield woken
        except BaseException:
            self.doubtful.add(session)
            raise
        finally:
            self._resuming[session].remove(woken)
            if not self._resuming[session]:
                del self._resuming[session]

    def is_resuming(self, session: str) -> bool:
        """Whether one is taken over right now."""
        return session in self._resuming

    def woken(self, session: str, seq: int, frame: bytes) -> None:
        """A wake-up has brought an event."""
        for woken in self._resuming.get(session, ()):
            woken.append((seq, frame))

    @contextmanager
    def expecting(self, session: str) -> Iterator[None]:
        """While an answer is waited for; ``end_of`` is to be asked at once after it."""
        self._expected[session] += 1
        try:
            yield
        finally:
            self._expected[session] -= 1
            if not self._expected[session]:
                del self._expected[session]
                asyncio.get_running_loop().call_soon(self._forget, session)

    def heard(self, session: str, owner: str, code: CloseCode) -> None:
        """It is over for an owner that is not known (yet)."""
        if self._expected[session]:
            self._cut[session, owner] = code

    def end_of(self, session: str, owner: str) -> CloseCode | None:
        """How it ended already; None: it did not."""
        return self._cut.pop((session, owner), None)

    def _forget(self, session: str) -> None:
        if not self._expected[session]:
            for key in [key for key in self._cut if key[0] == session]:
                del self._cut[key]
