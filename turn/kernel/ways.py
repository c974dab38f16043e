"""Ways: what the program does with a packet, in memory that it shares.

A way is at one of eight places that follow from a keyed hash of the packet's addresses: two rows
of four. Writing one, moving its end and ending it are stores, no system calls; they hold while
this process is busy or dead. A way is found from the moment that its ports are written: the last.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from operator import mul

from turn.kernel.bpf import Map
from turn.kernel.layout import (
    BUCKETS_OF_WAY,
    FIRST_ROW,
    INDEX,
    LIMITED,
    MIX,
    MOST_LIMITS,
    MOST_WAYS,
    PARTS,
    ROW,
    SECOND_ROW,
    SEED,
    WORD,
    Found,
    Way,
    read_way,
)

COARSE = 0.02
"""Seconds that the program's clock may be behind ours: it is read a tick at a time, 10 ms at most.
A way closes so much earlier there; its last packets go through user space, which is exact."""
RECENT = 1024
"""Ways that have ended whose places stay empty, where there are others: a packet under way on
another processor has long gone by when its way's place means something else."""
TWO_WORDS = struct.Struct("=QQ")
UNLIMITED = bytes(BUCKETS_OF_WAY.size)
MASK, HALF = (1 << 64) - 1, (1 << 32) - 1


class Table:
    """The ways of one address family. A way's number is its place."""

    def __init__(self, family: int, ways: Map, seed: tuple[int, ...]) -> None:
        """Share the memory; what is in it stays."""
        self._family = family
        self._parts = PARTS[family]
        self._rows = MOST_WAYS[family] // ROW
        self._seed = seed
        self._memory: mmap.mmap = ways.memory()
        self._words = memoryview(self._memory).cast("Q")
        self._halves = memoryview(self._memory).cast("I")
        self._recent: dict[int, None] = {}

    def close(self) -> None:
        """Let go of the memory; what is in it stays."""
        self._words.release()
        self._halves.release()
        self._memory.close()

    # Writing ---------------------------------------------------------------------------------

    def write(
        self,
        way: Way,
        hops: tuple[int, int],
        expires: float,
        buckets: tuple[int, ...],
        label: bytes,
    ) -> int | None:
        """Have packets go a way; gives its number. None: all its places are taken.

        :param hops: where they come from, and where they go to.
        :param expires: when it ends: a monotonic time.
        :param buckets: what they have to pass.
        :param label: the transaction id of its Data indications.
        """
        number = self._place(way.key())
        if number is None:
            return None
        behind, ahead = hops
        limits = _packed(buckets)
        if buckets:
            behind |= LIMITED
        value = way.value(behind, ahead, _nanoseconds(expires), limits, label)
        word, start = self._parts.ports, number * len(value)
        ports = start + 8 * word
        self._memory[start:ports] = value[: 8 * word]
        self._memory[ports + 8 : start + len(value)] = value[8 * word + 8 :]
        self._words[ports // 8] = WORD.unpack_from(value, 8 * word)[0]
        self._recent.pop(number, None)
        return number

    def lead(self, number: int, hops: tuple[int, int]) -> None:
        """Have packets come from and go to other hops."""
        at = number * 2 * self._parts.size + self._parts.hops
        behind, ahead = hops
        self._halves[at] = self._halves[at] & LIMITED | behind | ahead << 16

    def limit(self, number: int, buckets: tuple[int, ...]) -> None:
        """Have packets pass these buckets."""
        start = number * self._parts.size
        at, hops = start + self._parts.buckets, 2 * start + self._parts.hops
        self._words[at], self._words[at + 1] = TWO_WORDS.unpack(_packed(buckets))
        self._halves[hops] = self._halves[hops] & ~LIMITED | (LIMITED if buckets else 0)

    def move(self, number: int, expires: float) -> None:
        """Let a way live until a monotonic time."""
        self._words[number * self._parts.size + self._parts.expires] = _nanoseconds(expires)

    def free(self, number: int) -> None:
        """End a way now."""
        start = number * self._parts.size
        self._words[start + self._parts.expires] = 0
        self._words[start + self._parts.ports] = 0
        self._recent[number] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    # Reading ---------------------------------------------------------------------------------

    def read(self, number: int) -> tuple[int, int, int]:
        """What went by a way: packets, bytes, packets that were spoiled."""
        words, parts = self._words, self._parts
        start = number * parts.size
        return (
            words[start + parts.packets] + words[start + parts.frames],
            words[start + parts.bytes],
            words[start + parts.spoiled],
        )

    def frames(self, number: int) -> int:
        """Packets that went by XDP, of all those on a way."""
        return self._words[number * self._parts.size + self._parts.frames]

    def value(self, number: int) -> bytes:
        """A way as it is there."""
        size = 8 * self._parts.size
        return self._memory[number * size : (number + 1) * size]

    def all(self) -> Iterator[tuple[int, Found]]:
        """Every way that is there, and its number."""
        for number, ports in enumerate(self._words[self._parts.ports :: self._parts.size].tolist()):
            if ports:
                yield number, read_way(self._family, self.value(number))

    # Places ----------------------------------------------------------------------------------

    def _place(self, key: bytes) -> int | None:
        first, second = self._rows_of(key)
        empty = self._empty(first)
        if len(empty) > ROW // 2 and empty[0] not in self._recent:
            return empty[0]
        other = self._empty(second)
        if len(empty) <= ROW // 2 and len(empty) < len(other):
            empty, other = other, empty  # the emptier one, once the first is half full
        empty += other
        for number in empty:
            if number not in self._recent:
                return number
        return next((number for number in self._recent if number in empty), None)

    def _empty(self, row: int) -> list[int]:
        size = self._parts.size
        first = row * ROW
        start = first * size + self._parts.ports
        ports = self._words[start : start + ROW * size : size].tolist()
        return [number for number, used in enumerate(ports, first) if not used]

    def _rows_of(self, key: bytes) -> tuple[int, int]:
        """The numbers of a key's rows: as the program finds them."""
        words = memoryview(key).cast("I").tolist()
        mixed = [word + seed & HALF for word, seed in zip(words, self._seed, strict=False)]
        total = sum(map(mul, mixed[::2], mixed[1::2])) & MASK
        spread = (total ^ total >> 32) * MIX
        return spread >> FIRST_ROW & self._rows - 1, spread >> SECOND_ROW & self._rows - 1


class Ways:
    """The tables of both families."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        """Use what is there; memory is shared once it is needed."""
        self._maps = {family: maps[f"ways{family}"] for family in (4, 6)}
        self._seed = SEED.unpack(maps["seeds"].get(INDEX.pack(0)) or bytes(SEED.size))
        self._tables: dict[int, Table] = {}

    def close(self) -> None:
        """Let go of the memory; what is in it stays."""
        for table in self._tables.values():
            table.close()
        self._tables.clear()

    def of(self, family: int) -> Table:
        """The table of a family."""
        table = self._tables.get(family)
        if table is None:
            table = self._tables[family] = Table(family, self._maps[family], self._seed)
        return table

    def all(self) -> Iterator[tuple[Table, int, Found]]:
        """Every way that is there: its table, and its number there."""
        for family in self._maps:
            table = self.of(family)
            found = list(table.all())
            if not found:  # most machines have one family
                self._tables.pop(family).close()
            yield from ((table, number, way) for number, way in found)


def _nanoseconds(expires: float) -> int:
    return max(0, int((expires - COARSE) * 1e9))


def _packed(buckets: tuple[int, ...]) -> bytes:
    if not buckets:  # as it mostly is
        return UNLIMITED
    return BUCKETS_OF_WAY.pack(*buckets, *(0,) * (MOST_LIMITS - len(buckets)))
