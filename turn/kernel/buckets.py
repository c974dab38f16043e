"""Token buckets that the kernel takes of too: the rule of ``turn/bandwidth.py`` in shared memory.

A bucket is full again at the later of two times, the kernel's and ours; each is written by one of
the two. Who writes looks whether the other has written meanwhile, and adds what that took: nothing
that passed is forgotten, whichever way it went.
"""

import time
from collections import Counter, deque
from collections.abc import Collection, Iterable

from turn.bandwidth import Budgets, ByteBudget
from turn.kernel.bpf import Map
from turn.kernel.layout import (
    BUCKET_WORDS,
    FULL,
    LENT,
    MOST_BUCKETS,
    MOST_LIMITS,
    PRICE,
    PRICE_SHIFT,
    REFUSED,
    TICKS,
)
from turn.stats import DropReason

SECOND = 1_000_000_000 * TICKS


class Kept:
    """A bucket in shared memory (``turn.bandwidth.Keeper``)."""

    __slots__ = ("_at", "_now", "_price", "_words", "index", "users")

    def __init__(self, words: "memoryview[int]", index: int, rate: int, full: float) -> None:
        """Put a bucket there that is full again at a monotonic time."""
        self.index = index
        self.users = 0
        """Routes whose packets have to pass it."""
        self._words, self._at, self._now = words, index * BUCKET_WORDS, 0
        self._price = -((-SECOND << PRICE_SHIFT) // rate)
        words[self._at + FULL] = 0
        words[self._at + LENT] = max(0, int(full * SECOND))
        words[self._at + PRICE] = self._price
        words[self._at + REFUSED] = 0

    @property
    def full(self) -> float:
        """When it will be full again: a monotonic time."""
        return max(self._words[self._at + FULL], self._words[self._at + LENT]) / SECOND

    @property
    def refused(self) -> int:
        """Packets that the kernel has dropped, as they found too little."""
        return self._words[self._at + REFUSED]

    def holds(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes are there at the monotonic time ``now``."""
        words, at = self._words, self._at
        self._now = int(now * SECOND)
        start = max(words[at + FULL], words[at + LENT], self._now)
        return start + (size * self._price >> PRICE_SHIFT) <= self._now + SECOND

    def spend(self, size: int) -> None:
        """Take bytes that are there."""
        words, at, cost = self._words, self._at, size * self._price >> PRICE_SHIFT
        full = words[at + FULL]
        words[at + LENT] = max(full, words[at + LENT], self._now) + cost
        if words[at + FULL] != full:  # the kernel took of it as we did
            words[at + LENT] = words[at + FULL] + cost


class Buckets:
    """All that are in shared memory; an index is 1 or more."""

    def __init__(self, buckets: Map, taken: Collection[int] = ()) -> None:
        """Begin.

        :param taken: indices that are in use already; ``free`` them when they are not.
        """
        self._memory = buckets.memory()
        self._words = memoryview(self._memory).cast("Q")
        self._unused = (index for index in range(1, MOST_BUCKETS) if index not in taken)
        self._freed: deque[int] = deque()
        self._kept: dict[ByteBudget, Kept] = {}
        self._refused: Counter[DropReason] = Counter()

    def close(self) -> None:
        """Let go of the memory; what is in it stays."""
        for budget in list(self._kept):
            self._take_back(budget)
        self._words.release()
        self._memory.close()

    def lend(self, *ways: Budgets | None) -> list[tuple[int, ...]] | None:
        """Have the kernel take of these too; gives where they are. None: that cannot be.

        :param ways: what packets have to pass that go one way, and the other. ``take_back`` them
            when a route is over.
        """
        if not any(ways):
            return [()] * len(ways)
        budgets = of_bytes(ways)
        if budgets is None or not all(self._keep(budget) for budget in budgets):
            self._release(budgets or ())
            return None
        for budget in budgets:
            self._kept[budget].users += 1
        return [tuple(self._kept[budget].index for budget in of_bytes([way]) or ()) for way in ways]

    def take_back(self, *ways: Budgets | None) -> None:
        """A route has ended that had these."""
        if not any(ways):
            return
        budgets = of_bytes(ways) or ()
        for budget in budgets:
            self._kept[budget].users -= 1
        self._release(budgets)

    def free(self, indices: Collection[int]) -> None:
        """Have indices that were taken by others."""
        self._freed.extend(indices)

    def refused(self) -> Counter[DropReason]:
        """Packets that the kernel has dropped, by the bucket that held too little."""
        total = self._refused.copy()
        for budget, kept in self._kept.items():
            total[budget.reason] += kept.refused
        return total

    def _keep(self, budget: ByteBudget) -> Kept | None:
        kept = self._kept.get(budget)
        if kept is None:
            index = next(self._unused, None) or (self._freed.popleft() if self._freed else None)
            if index is None:
                return None
            kept = self._kept[budget] = Kept(self._words, index, budget.rate, budget.full)
            budget.keeper = kept
        return kept

    def _release(self, budgets: Iterable[ByteBudget]) -> None:
        """Have back what no route needs there."""
        for budget in budgets:
            kept = self._kept.get(budget)
            if kept is not None and not kept.users:
                self._freed.append(kept.index)
                self._take_back(budget)

    def _take_back(self, budget: ByteBudget) -> None:
        kept = self._kept.pop(budget)
        self._refused[budget.reason] += kept.refused
        budget.keeper = None
        budget.fill(kept.full, time.monotonic())


def of_bytes(ways: Iterable[Budgets | None]) -> list[ByteBudget] | None:
    """The buckets of these; None: there are others, or too many."""
    found: list[ByteBudget] = []
    for way in ways:
        budgets = way.all if way is not None else ()
        own = [budget for budget in budgets if isinstance(budget, ByteBudget)]
        if len(own) != len(budgets) or len(own) > MOST_LIMITS:
            return None
        found += own
    return found
