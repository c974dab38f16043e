"""The books of one worker among several: each quota holds for all of them together."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from turn.allocation.books import NO_LIMITS, Most, key_of_relay
from turn.bandwidth import Key, Twins
from turn.codec.values import Address
from turn.stats import DropReason
from turn.workers.ledger import Full, Ledger
from turn.workers.memory import PLACES, Memory

RELAYS, ASKED = 1, 2
"""What a worker's column of a relayed address says: it is there; it has asked whether it is."""
Tell = Callable[[Address, Sequence[int]], None]
"""Tells other workers, by number, of a relayed address that is no more."""


class SharedBooks:
    """What this worker has, in its column of the ledger (``Books``)."""

    def __init__(self, ledger: Ledger, worker: int, tell: Tell) -> None:
        self._ledger = ledger
        self._worker = worker
        self._tell = tell

    def take(self, amounts: Mapping[Key, int], most: Most = NO_LIMITS) -> str:
        """Take all, or nothing; a ledger that is full refuses like a quota."""
        ledger = self._ledger
        taken: list[tuple[int, int]] = []
        ledger.lock()
        try:
            for key, amount in amounts.items():
                place = ledger.find_or_make(key)
                if key[0] in most and sum(ledger.counts(place)) + amount > most[key[0]]:
                    return self._undo(taken, key)
                ledger.add(place, self._worker, amount)
                taken.append((place, amount))
        except Full:
            return self._undo(taken, ("total", ""))
        finally:
            ledger.unlock()
        return ""

    def _undo(self, taken: Iterable[tuple[int, int]], over: Key) -> str:
        for place, amount in taken:
            self._ledger.add(place, self._worker, -amount)
        return over[0]

    def give(self, amounts: Mapping[Key, int]) -> None:
        """Give back."""
        ledger = self._ledger
        ledger.lock()
        try:
            for key, amount in amounts.items():
                place = ledger.find(key)
                if place is not None:
                    ledger.add(place, self._worker, -amount)
        finally:
            ledger.unlock()

    def has(self, key: Key) -> bool:
        """Whether this worker has anything of it."""
        place = self._ledger.find(key)
        return place is not None and self._ledger.counts(place)[self._worker] > 0

    # Relayed addresses ----------------------------------------------------------------------

    def opened(self, relayed: Address, *, is_tcp: bool = False) -> None:
        """Say that this worker relays from there."""
        ledger = self._ledger
        ledger.lock()
        try:
            place = ledger.find_or_make(key_of_relay(relayed, is_tcp=is_tcp))
            ledger.set(place, self._worker, RELAYS)
            ledger.add(ledger.find_or_make(ports_of(relayed.host)), self._worker, 1)
        except Full:
            return  # other workers' clients cannot send there, that is all
        finally:
            ledger.unlock()

    def closed(self, relayed: Address, *, is_tcp: bool = False) -> None:
        """Say that it is over, to all who asked for it too: their clients may be sending."""
        ledger = self._ledger
        ledger.lock()
        try:
            place = ledger.find(key_of_relay(relayed, is_tcp=is_tcp))
            if place is None:
                return
            counts = ledger.counts(place)
            for worker, count in enumerate(counts):
                if count:
                    ledger.set(place, worker, 0)
            ports = ledger.find(ports_of(relayed.host))
            if ports is not None:
                ledger.add(ports, self._worker, -1)
        finally:
            ledger.unlock()
        asked = [worker for worker, count in enumerate(counts) if count == ASKED]
        if asked:
            self._tell(relayed, asked)

    def handed_over(self, relayed: Address) -> None:
        """Say that another worker has it, and that we want to know when it ends."""
        ledger = self._ledger
        ledger.lock()
        try:
            place = ledger.find(key_of_relay(relayed, is_tcp=False))
            if place is not None:
                ledger.set(place, self._worker, ASKED)
            ports = ledger.find(ports_of(relayed.host))
            if ports is not None:
                ledger.add(ports, self._worker, -1)
        finally:
            ledger.unlock()

    def is_live(self, relayed: Address, *, is_tcp: bool = False) -> bool:
        """Whether another worker relays from there; if so, it tells us when that ends.

        With TCP nobody has to be told: the end of a connection is seen by both of its sides.
        """
        ledger, key = self._ledger, key_of_relay(relayed, is_tcp=is_tcp)
        if ledger.find(key) is None:  # the usual case needs no lock
            return False
        ledger.lock()
        try:
            place = ledger.find(key)
            if place is None or RELAYS not in ledger.counts(place):
                return False
            if not is_tcp and not ledger.counts(place)[self._worker]:
                ledger.set(place, self._worker, ASKED)
            return True
        finally:
            ledger.unlock()

    def ports_in_use(self, host: str) -> int:
        """Ports of a relay address that all workers together relay from."""
        place = self._ledger.find(ports_of(host))
        return 0 if place is None else sum(self._ledger.counts(place))

    # Bandwidth ------------------------------------------------------------------------------

    def budgets(self, key: Key, rate: int, reason: DropReason) -> Twins | None:
        """The buckets that lie beside a row, which the caller has something of."""
        self._ledger.lock()
        try:
            place = self._ledger.find_or_make(key)
        except Full:
            return None
        finally:
            self._ledger.unlock()
        times, first = self._ledger.budgets(place)
        return (
            SharedBudget(times, first, rate, reason),
            SharedBudget(times, first + 1, rate, reason),
        )


class SharedBudget:
    """A token bucket (``ByteBudget``) that several workers take from, one float64.

    It is the time at which the bucket is full again. Two workers that write at once may lose one
    packet's worth between them, which is little beside a lock for each packet.
    """

    __slots__ = ("_index", "_now", "_times", "rate", "reason")

    def __init__(
        self, times: "memoryview[float]", index: int, rate: int, reason: DropReason
    ) -> None:
        self.rate = rate
        self.reason = reason
        self._times = times
        self._index = index
        self._now = 0.0

    def holds(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes are there at the monotonic time ``now``, the same everywhere."""
        self._now = now
        return max(self._times[self._index], now) + size / self.rate <= now + 1.0

    def spend(self, size: int) -> None:
        """Take bytes that are there."""
        self._times[self._index] = max(self._times[self._index], self._now) + size / self.rate


class SharedPlaces:
    """Connections without proof, by source, of all workers (``limits.Places``)."""

    def __init__(self, memory: Memory, worker: int, salt: int) -> None:
        self._counts = memory.strangers
        self._workers = memory.workers
        self._worker = worker
        self._salt = salt

    def count(self, network: int) -> int:
        """How many there are, here and at the others."""
        place = hash((self._salt, network)) % PLACES
        return sum(self._counts[place + worker * PLACES] for worker in range(self._workers))

    def add(self, network: int, amount: int) -> None:
        """Count some in or out here."""
        place = hash((self._salt, network)) % PLACES + self._worker * PLACES
        self._counts[place] = min(max(0, self._counts[place] + amount), 0xFFFF)


def forget_strangers(memory: Memory, worker: int) -> None:
    """A worker is dead, and its connections with it."""
    start = worker * PLACES
    memory.strangers[start : start + PLACES] = memoryview(bytes(2 * PLACES)).cast("H")


def ports_of(host: str) -> Key:
    """What counts the ports of a relay address."""
    return "ports", host
