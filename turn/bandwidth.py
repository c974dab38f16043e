"""How many bytes may pass: token buckets for an allocation, a user and the whole relay.

A packet passes where each of its buckets holds enough, and then takes from each; else it is
dropped under the name of the bucket that was empty. Nobody is cut off.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from turn.stats import DropReason


class Budget(Protocol):
    """A token bucket over bytes."""

    reason: DropReason
    """What a packet is counted under that it does not let pass."""

    def holds(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes are there at the monotonic time ``now``."""

    def spend(self, size: int) -> None:
        """Take bytes that are there."""


class ByteBudget:
    """A token bucket over bytes. Holds one second's worth, so that no burst is longer."""

    __slots__ = ("_tokens", "_updated", "rate", "reason")

    def __init__(self, rate: int, reason: DropReason, now: float) -> None:
        self.rate = rate
        self.reason = reason
        self._tokens = float(rate)
        self._updated = now

    def holds(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes are there at the monotonic time ``now``."""
        if now > self._updated:
            self._tokens = min(self.rate, self._tokens + (now - self._updated) * self.rate)
            self._updated = now
        return self._tokens >= size

    def spend(self, size: int) -> None:
        """Take bytes that are there."""
        self._tokens -= size


class Budgets:
    """The buckets that a packet has to pass, one way."""

    __slots__ = ("_budgets",)

    def __init__(self, *budgets: Budget) -> None:
        self._budgets = budgets

    def refuse(self, size: int, now: float) -> DropReason | None:
        """None, and taken from each; or which bucket held too little, and nothing taken."""
        for budget in self._budgets:
            if not budget.holds(size, now):
                return budget.reason
        for budget in self._budgets:
            budget.spend(size)
        return None


class Rates(NamedTuple):
    """Bytes a second, each way; 0: no limit."""

    allocation: int = 0
    user: int = 0
    total: int = 0


Twins = tuple[Budget, Budget]
"""A bucket for each way: to peers, to the client."""
Share = Callable[[tuple[str, str], int, DropReason], Twins | None]
"""The buckets that this process has together with others, for somebody; None: it has its own."""
Pair = tuple[Budgets | None, Budgets | None]
"""For packets to peers, and for packets to the client; None: no limit."""


def nothing_shared(key: tuple[str, str], rate: int, reason: DropReason) -> None:
    """A process that has no others beside it (``Share``)."""


class Bandwidth:
    """Hands out buckets: an allocation's own, its user's and everyone's."""

    def __init__(self, rates: Rates, share: Share = nothing_shared) -> None:
        self._rates = rates
        self._share = share
        self._users: dict[str, tuple[ByteBudget, ByteBudget]] = {}
        self._total: tuple[ByteBudget, ByteBudget] | None = None

    def of(self, user: str, now: float) -> Pair:
        """The buckets of a new allocation of ``user``."""
        rates = self._rates
        pairs: list[Twins] = []
        if rates.allocation:
            pairs.append(_pair(rates.allocation, DropReason.BANDWIDTH, now))
        if rates.user:
            pairs.append(self._of_user(user, now))
        if rates.total:
            pairs.append(self._of_all(now))
        if not pairs:
            return None, None
        return Budgets(*(out for out, _ in pairs)), Budgets(*(back for _, back in pairs))

    def _of_user(self, user: str, now: float) -> Twins:
        rate, reason = self._rates.user, DropReason.USER_BANDWIDTH
        shared = self._share(("user", user), rate, reason)
        if shared is None and user not in self._users:
            self._users[user] = _pair(rate, reason, now)
        return shared or self._users[user]

    def _of_all(self, now: float) -> Twins:
        rate, reason = self._rates.total, DropReason.TOTAL_BANDWIDTH
        shared = self._share(("total", ""), rate, reason)
        if shared is None:
            shared = self._total = self._total or _pair(rate, reason, now)
        return shared

    def forget(self, is_active: Callable[[str], bool], now: float) -> None:
        """Let go of users without allocations whose buckets are full, as new ones would be."""
        idle = [
            user
            for user, pair in self._users.items()
            if not is_active(user) and all(budget.holds(budget.rate, now) for budget in pair)
        ]
        for user in idle:
            del self._users[user]


def _pair(rate: int, reason: DropReason, now: float) -> tuple[ByteBudget, ByteBudget]:
    return ByteBudget(rate, reason, now), ByteBudget(rate, reason, now)
