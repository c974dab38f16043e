"""Sessions that are on their way to this node, and those that another one took meanwhile.

An answer and a wake-up come by two connections: the news that a session was taken from this node
may be here before the news that the node had it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from signaling.protocol.errors import CloseCode


class Coming:
    """What is heard of sessions before the answer that they are attached here."""

    def __init__(self) -> None:
        self._expected: Counter[str] = Counter()
        self._cut: dict[tuple[str, str], CloseCode] = {}

    def __len__(self) -> int:
        return len(self._cut)

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
