"""The ledger: who has how much, a row for each, a column for each worker, in shared memory.

A row is found by a keyed hash and linear probing. It is never moved, so looking needs no lock;
whoever changes one holds a lock that the kernel takes back from a process that dies. Each change is
one store: however a worker dies, what is left is a ledger, and its column says what to give back.
"""

import fcntl
import hashlib
import struct
import time

from turn.bandwidth import Key
from turn.workers.memory import HEAD_BYTES, KEY_BYTES, SLOTS, Memory

EMPTY = bytes(KEY_BYTES)
COUNT = struct.Struct("=I")
CLEARED_AT_ONCE = 64
"""Rows between which other workers get their turn."""


class Full(Exception):
    """There is no row left."""


class Ledger:
    """The rows of the shared memory."""

    def __init__(self, memory: Memory, secret: bytes) -> None:
        """Read and write them.

        :param secret: hashes the keys; users choose names, and shall not choose rows.
        """
        self._descriptor = memory.descriptor
        self._times = memory.times
        self._rows = memory.pages
        self._row_bytes = memory.row_bytes
        self._end = SLOTS * memory.row_bytes
        self._counts = struct.Struct(f"={memory.workers}I")
        self._hash = hashlib.blake2b(digest_size=KEY_BYTES, key=secret)

    def lock(self) -> None:
        """Nobody else changes anything until ``unlock``: some microseconds, please."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let others change something."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def find(self, key: Key) -> int | None:
        """Where the row of a key begins."""
        return self._find(self._digest(key))

    def find_or_make(self, key: Key) -> int:
        """The same; a row that is free becomes the key's. Locked. :raises Full: there is none."""
        digest = self._digest(key)
        place = self._find(digest)
        if place is not None:
            return place
        place = first = self._start(digest)
        self._tidy_from(first)
        while not self._is_free(place):
            place += self._row_bytes
            if place == self._end:
                place = 0
            if place == first:
                raise Full
        times = place // 8 + 2
        self._times[times] = self._times[times + 1] = 0.0
        self._rows[place : place + KEY_BYTES] = digest
        return place

    def _find(self, digest: bytes) -> int | None:
        rows = self._rows
        place = first = self._start(digest)
        while (found := rows[place : place + KEY_BYTES]) != digest:
            place += self._row_bytes
            if place == self._end:
                place = 0
            if found == EMPTY or place == first:
                return None
        return place

    def counts(self, place: int) -> tuple[int, ...]:
        """What each worker has."""
        found: tuple[int, ...] = self._counts.unpack_from(self._rows, place + HEAD_BYTES)
        return found

    def add(self, place: int, worker: int, amount: int) -> None:
        """Count more, or less, but never less than nothing. Locked."""
        offset = place + HEAD_BYTES + 4 * worker
        (count,) = COUNT.unpack_from(self._rows, offset)
        COUNT.pack_into(self._rows, offset, max(0, count + amount))
        if amount < 0:
            self._tidy(place)

    def set(self, place: int, worker: int, count: int) -> None:
        """Count so many. Locked."""
        COUNT.pack_into(self._rows, place + HEAD_BYTES + 4 * worker, count)
        if not count:
            self._tidy(place)

    def clear(self, worker: int) -> None:
        """Give back all that a worker had: it is dead."""
        words = self._times.cast("B").cast("I")
        first, step = (HEAD_BYTES + 4 * worker) // 4, self._row_bytes // 4
        column = words[first::step].tolist()
        used = [row * self._row_bytes for row, count in enumerate(column) if count]
        for start in range(0, len(used), CLEARED_AT_ONCE):
            self.lock()
            for place in used[start : start + CLEARED_AT_ONCE]:
                self.set(place, worker, 0)
            self.unlock()

    def budgets(self, place: int) -> "tuple[memoryview[float], int]":
        """The two times that are kept with a row: where they are, and at which index."""
        return self._times, place // 8 + 2

    def _digest(self, key: Key) -> bytes:
        keyed = self._hash.copy()
        keyed.update("\0".join(key).encode())
        return keyed.digest()

    def _start(self, digest: bytes) -> int:
        return int.from_bytes(digest[:4]) % SLOTS * self._row_bytes

    def _is_free(self, place: int) -> bool:
        """Whether nobody has anything of it, nor an empty bucket to fill up again."""
        if any(self._counts.unpack_from(self._rows, place + HEAD_BYTES)):
            return False
        times = place // 8 + 2
        full = max(self._times[times], self._times[times + 1])
        return not full or full <= time.monotonic()

    def _tidy_from(self, place: int) -> None:
        """Empty the free rows at the end of those that a search from here has to pass.

        Whoever left them had a bucket that was not full again; without this they would stay for
        ever, and every search grow longer.
        """
        end = place
        while self._rows[end : end + KEY_BYTES] != EMPTY:
            end = (end + self._row_bytes) % self._end
            if end == place:
                return
        if end != place:
            self._tidy((end - self._row_bytes) % self._end)

    def _tidy(self, place: int) -> None:
        """Empty a free row that no search has to pass, and free ones before it."""
        following = (place + self._row_bytes) % self._end
        while self._rows[following : following + KEY_BYTES] == EMPTY and self._is_free(place):
            if self._rows[place : place + KEY_BYTES] == EMPTY:
                return
            self._rows[place : place + KEY_BYTES] = EMPTY
            following = place
            place = (place - self._row_bytes) % self._end
