"""Meters: how long each way may be used and how much it was, in memory that the program shares.

A route has two, one a way, at twice its number and at the next. Moving or ending its life is one
store, without a system call, and holds while this process is busy or dead.
"""

import struct
from collections import deque
from collections.abc import Collection

from turn.kernel.bpf import Map
from turn.kernel.layout import (
    BUCKETS_OF_METER,
    BYTES,
    EXPIRES,
    FRAMES,
    LIMITS,
    METER,
    METER_WORDS,
    MOST_LIMITS,
    MOST_WAYS,
    PACKETS,
    SPOILED,
)
from turn.routes import Carried

TWO_WORDS = struct.Struct("=QQ")
BLANK = bytes(2 * METER.size)
"""The meters of a route that nothing went by: it has ended, and no bucket bounds it."""
COARSE = 0.02
"""Seconds that the program's clock may be behind ours: it is read a tick at a time, 10 ms at most.
A route closes so much earlier there; its last packets go through user space, which is exact."""


class Meters:
    """All of them; hands out numbers."""

    def __init__(self, meters: Map, taken: Collection[int]) -> None:
        """Begin.

        :param taken: numbers that are in use already; ``free`` them when they are not.
        """
        self._memory = meters.memory()
        self._words = memoryview(self._memory).cast("Q")
        self._unused = (number for number in range(MOST_WAYS // 2) if number not in taken)
        self._freed: deque[int] = deque()
        self._retired = Carried()

    def close(self) -> None:
        """Let go of the memory; what is in it stays."""
        self._words.release()
        self._memory.close()

    def take(self) -> int | None:
        """A free number: the one that was free longest. None: there is none.

        A packet under way on another CPU has long gone by when its meter means something else.
        """
        number = next(self._unused, None)
        if number is None and self._freed:
            number = self._freed.popleft()
        if number is not None:
            start = number * len(BLANK)
            self._memory[start : start + len(BLANK)] = BLANK
        return number

    def limit(self, number: int, sending: tuple[int, ...], receiving: tuple[int, ...]) -> None:
        """Have a route's packets pass these buckets."""
        for meter, buckets in ((2 * number, sending), (2 * number + 1, receiving)):
            words = 0, 0
            if buckets:
                padded = buckets + (0,) * (MOST_LIMITS - len(buckets))
                words = TWO_WORDS.unpack(BUCKETS_OF_METER.pack(*padded))
            at = meter * METER_WORDS + LIMITS
            self._words[at], self._words[at + 1] = words

    def limits(self, number: int) -> set[int]:
        """The buckets of a route's packets."""
        found: set[int] = set()
        for meter in (2 * number, 2 * number + 1):
            at = meter * METER_WORDS + LIMITS
            words = TWO_WORDS.pack(self._words[at], self._words[at + 1])
            found.update(BUCKETS_OF_METER.unpack(words))
        return found - {0}

    def move(self, number: int, expires: float) -> None:
        """Let a route live until a monotonic time."""
        until = max(0, int((expires - COARSE) * 1e9))
        self._words[2 * number * METER_WORDS + EXPIRES] = until
        self._words[(2 * number + 1) * METER_WORDS + EXPIRES] = until

    def free(self, number: int) -> None:
        """End a route now, and have its number given to another some time."""
        self.move(number, 0.0)
        self._retired = self._retired.plus(self.read(number))
        self._freed.append(number)

    def read(self, number: int) -> Carried:
        """What went by a route."""
        sent, received = 2 * number * METER_WORDS, (2 * number + 1) * METER_WORDS
        words = self._words
        return Carried(
            words[sent + PACKETS] + words[sent + FRAMES],
            words[sent + BYTES],
            words[received + PACKETS] + words[received + FRAMES],
            words[received + BYTES],
            words[sent + SPOILED] + words[received + SPOILED],
        )

    def frames(self, number: int) -> int:
        """Packets that went by XDP, of all those on a route."""
        word = 2 * number * METER_WORDS + FRAMES
        return self._words[word] + self._words[word + METER_WORDS]

    def total(self, numbers: Collection[int]) -> Carried:
        """What went by these routes, and by those that have ended."""
        total = self._retired
        for number in numbers:
            total = total.plus(self.read(number))
        return total
