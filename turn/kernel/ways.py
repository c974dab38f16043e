"""Ways: what the program does with a packet, in memory that it shares.

A way is at one of sixteen places that follow from a keyed hash of the packet's addresses: two rows
of eight, each looked through from a place of the way's own. Writing one, moving its end and ending
it are stores, no system calls; they hold while this process is busy or dead. A way is found from
the moment that its ports are written: the last.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping

from turn.kernel.bpf import Map
from turn.kernel.layout import (
    BUCKETS_OF_WAY,
    FIRST_PLACE,
    INDEX,
    LIMITED,
    MIX,
    MOST_LIMITS,
    MOST_WAYS,
    PARTS,
    ROW,
    SECOND_PLACE,
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
CROWDED = 2
"""Places of its first row that are left when a way may go to its second: packets look there later,
in another page; but were the first one always filled up, ways would find no place much earlier."""
TWO_HALVES = struct.Struct("=II")
STEPS = range(ROW)
"""From the first place that is looked at in a row to the others, by XOR: as packets look there."""
UNLIMITED = bytes(BUCKETS_OF_WAY.size)
MASK, HALF = (1 << 64) - 1, (1 << 32) - 1


class Place:
    """Where a way is; it may be moved."""

    __slots__ = ("hash", "number")

    def __init__(self, number: int, mixed: int) -> None:
        self.number = number
        self.hash = mixed
        """Of its key: it says where the way may be."""


class Table:
    """The ways of one address family."""

    def __init__(self, family: int, ways: Map, rests: Map, seed: "Seed") -> None:
        """Share the memory; what is in it stays."""
        self._family = family
        self._parts = PARTS[family]
        self._seed = seed
        self._memory: mmap.mmap = ways.memory()
        self._words = memoryview(self._memory).cast("Q")
        self._halves = memoryview(self._memory).cast("I")
        self._rest: mmap.mmap = rests.memory()
        self._rest_words = memoryview(self._rest).cast("Q")
        self._rest_halves = memoryview(self._rest).cast("I")
        self._places: dict[int, Place] = {}
        self._recent: dict[int, None] = {}
        self._counted: dict[int, tuple[int, int, int]] = {}
        """What went by a way elsewhere, while it was moved here."""

    def close(self) -> None:
        """Let go of the memory; what is in it stays."""
        for view in (self._words, self._halves, self._rest_words, self._rest_halves):
            view.release()
        self._memory.close()
        self._rest.close()

    # Writing ---------------------------------------------------------------------------------

    def write(
        self,
        way: Way,
        hops: tuple[int, int],
        expires: float,
        buckets: tuple[int, ...],
        label: bytes,
    ) -> Place | None:
        """Have packets go a way. None: all its places are taken.

        :param hops: where they come from, and where they go to.
        :param expires: when it ends: a monotonic time.
        :param buckets: what they have to pass.
        :param label: the transaction id of its Data indications.
        """
        number, mixed = None, self._seed.hash(way.key())
        while number is None:
            number = self._free_place(mixed)
            if number is None and not self._grow():
                return None
        behind, ahead = hops
        if buckets:
            behind |= LIMITED
        limits = _packed(buckets)
        self._put(number, way.value(behind, ahead, _nanoseconds(expires), limits, label))
        self._counted.pop(number, None)
        place = self._places[number] = Place(number, mixed)
        return place

    def _put(self, number: int, value: bytes) -> None:
        word, size, rest = self._parts.ports, 8 * self._parts.size, 8 * self._parts.rest
        start, ports = number * size, number * size + 8 * word
        self._rest[number * rest : (number + 1) * rest] = value[size:]
        self._memory[start:ports] = value[: 8 * word]
        self._memory[ports + 8 : start + size] = value[8 * word + 8 : size]
        self._words[ports // 8] = WORD.unpack_from(value, 8 * word)[0]
        self._recent.pop(number, None)

    def lead(self, place: Place, hops: tuple[int, int]) -> None:
        """Have packets come from and go to other hops."""
        at = place.number * 2 * self._parts.size + self._parts.hops
        behind, ahead = hops
        self._halves[at] = self._halves[at] & LIMITED | behind | ahead << 16

    def limit(self, place: Place, buckets: tuple[int, ...]) -> None:
        """Have packets pass these buckets."""
        at = place.number * 2 * self._parts.rest + self._parts.buckets
        hops = place.number * 2 * self._parts.size + self._parts.hops
        for index, bucket in enumerate(BUCKETS_OF_WAY.unpack(_packed(buckets)), at):
            self._rest_halves[index] = bucket
        self._halves[hops] = self._halves[hops] & ~LIMITED | (LIMITED if buckets else 0)

    def move(self, place: Place, expires: float) -> None:
        """Let a way live until a monotonic time."""
        self._words[place.number * self._parts.size + self._parts.expires] = _nanoseconds(expires)

    def free(self, place: Place) -> None:
        """End a way now."""
        del self._places[place.number]
        self._clear(place.number)

    def _clear(self, number: int) -> None:
        start = number * self._parts.size
        self._words[start + self._parts.expires] = 0
        self._words[start + self._parts.ports] = 0
        self._recent[number] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]

    # Reading ---------------------------------------------------------------------------------

    def read(self, place: Place) -> tuple[int, int, int]:
        """What went by a way: packets, bytes, packets that were spoiled. Also of one just ended."""
        found = self._read(place.number)
        if place.number in self._counted:
            before = self._counted[place.number]
            return found[0] + before[0], found[1] + before[1], found[2] + before[2]
        return found

    def _read(self, number: int) -> tuple[int, int, int]:
        words, parts = self._words, self._parts
        start = number * parts.size
        packets = words[start + parts.packets] + words[start + parts.frames]
        spoiled = self._rest_words[number * parts.rest + parts.spoiled]
        return packets, words[start + parts.bytes], spoiled

    def frames(self, place: Place) -> int:
        """Packets that went by XDP, of all those on a way."""
        return self._words[place.number * self._parts.size + self._parts.frames]

    def value(self, number: int) -> bytes:
        """What is at a place, and the rest of it."""
        size, rest = 8 * self._parts.size, 8 * self._parts.rest
        way = self._memory[number * size : (number + 1) * size]
        return way + self._rest[number * rest : (number + 1) * rest]

    def all(self) -> Iterator[tuple[Place, Found]]:
        """Every way that is there."""
        end = self._places_in_use * self._parts.size
        ports = self._words[self._parts.ports : end : self._parts.size].tolist()
        for number in [number for number, word in enumerate(ports) if word]:
            found = read_way(self._family, self.value(number))
            place = Place(number, self._seed.hash(found.key))
            if _is_of(place.hash, number, self._places_in_use):
                yield self._places.setdefault(number, place), found
            else:  # it was moved by a process that died before it had taken this one away
                self._clear(number)

    # Places ----------------------------------------------------------------------------------

    @property
    def _places_in_use(self) -> int:
        return self._seed.places[self._family]

    def _free_place(self, mixed: int) -> int | None:
        recent = self._recent
        first, second = _first_of(mixed, self._places_in_use)
        row = self._row(first)
        left = row.count(0)
        if left > CROWDED and not row[first % ROW] and first not in recent:  # as it mostly is
            return first
        rows = [(first, row), (second, self._row(second))]
        if left <= CROWDED and left < rows[1][1].count(0):
            rows.reverse()
        empty = [
            place ^ step for place, row in rows for step in STEPS if not row[place % ROW ^ step]
        ]
        for number in empty:
            if number not in recent:
                return number
        return next((number for number in recent if number in empty), None)

    def _row(self, place: int) -> list[int]:
        """The words with the ports in a place's row; 0: nothing is there."""
        size = self._parts.size
        start = (place & -ROW) * size + self._parts.ports
        return self._words[start : start + ROW * size : size].tolist()

    def _grow(self) -> bool:
        """Use twice as many places; False: all are in use.

        A way that lay at place 5 of 4,096 belongs to place 5 or 4,101 of 8,192. All are copied to
        the latter; of those that stay the copy is taken away, and those that move are at both,
        until one word has the program look for all of them at the new places.
        """
        places = self._places_in_use
        if 2 * places > MOST_WAYS[self._family]:
            return False
        for memory, words in ((self._rest, self._parts.rest), (self._memory, self._parts.size)):
            size = 8 * words * places
            memory[size : 2 * size] = memory[:size]
        moved: list[tuple[Place, tuple[int, int, int]]] = []
        for number, place in self._places.items():
            further = number + places
            if _is_of(place.hash, number, 2 * places):
                self._words[further * self._parts.size + self._parts.ports] = 0
            else:
                self._counted.pop(further, None)
                moved.append((place, self._read(further)))
        self._seed.use(self._family, 2 * places)
        for place, copied in moved:
            packets, size, spoiled = self.read(place)
            counted = packets - copied[0], size - copied[1], spoiled - copied[2]
            self._counted.pop(place.number, None)
            self._clear(place.number)
            del self._places[place.number]
            place.number += places
            self._counted[place.number] = counted
            self._places[place.number] = place
        return True


class Seed:
    """What says where a way belongs: a secret, and how many places are in use of each family."""

    def __init__(self, seeds: Map) -> None:
        """Read it."""
        self._map = seeds
        self._secret, *places = SEED.unpack(seeds.get(INDEX.pack(0)) or bytes(SEED.size))
        self._pairs = tuple(TWO_HALVES.iter_unpack(self._secret))
        self.places: dict[int, int] = dict(zip((4, 6), places, strict=True))

    def hash(self, key: bytes) -> int:
        """Of a key: as the program has it."""
        total = 0
        pairs = zip(TWO_HALVES.iter_unpack(key), self._pairs, strict=False)
        for (one, other), (secret, another) in pairs:
            total += (one + secret & HALF) * (other + another & HALF)
        total &= MASK
        return (total ^ total >> 32) * MIX & MASK

    def use(self, family: int, places: int) -> None:
        """Have the program look in so many places."""
        self.places[family] = places
        self._map.update(INDEX.pack(0), SEED.pack(self._secret, *self.places.values()))


class Ways:
    """The tables of both families."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        """Use what is there; memory is shared once it is needed."""
        self._maps = {family: (maps[f"ways{family}"], maps[f"rests{family}"]) for family in (4, 6)}
        self._seed = Seed(maps["seeds"])
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
            table = self._tables[family] = Table(family, *self._maps[family], self._seed)
        return table

    def all(self) -> Iterator[tuple[Table, Place, Found]]:
        """Every way that is there, and its table."""
        for family in self._maps:
            table = self.of(family)
            found = list(table.all())
            if not found:  # most machines have one family
                self._tables.pop(family).close()
            yield from ((table, place, way) for place, way in found)


def _first_of(mixed: int, places: int) -> tuple[int, int]:
    """The places that a hash names, when so many are in use: looked at first in either row."""
    return mixed >> FIRST_PLACE & places - 1, mixed >> SECOND_PLACE & places - 1


def _is_of(mixed: int, number: int, places: int) -> bool:
    """Whether a way of this hash may be at a place."""
    first, second = _first_of(mixed, places)
    return first ^ number < ROW or second ^ number < ROW


def _nanoseconds(expires: float) -> int:
    return max(0, int((expires - COARSE) * 1e9))


def _packed(buckets: tuple[int, ...]) -> bytes:
    if not buckets:  # as it mostly is
        return UNLIMITED
    return BUCKETS_OF_WAY.pack(*buckets, *(0,) * (MOST_LIMITS - len(buckets)))
