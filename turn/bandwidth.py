"""How many bytes may pass: token buckets for an allocation, a user, an address, a tenant, all.

A packet passes where each of its buckets holds enough, and then takes from each; else it is
dropped under the name of the bucket that was empty. Nobody is cut off. Payload counts; but a small
packet as much as ``SMALLEST``, or a flood of empty ones would pass whatever the limit.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from turn.stats import DropReason

SMALLEST = 64
"""Bytes that a packet takes at least: what an Ethernet sends for it, however little is in it."""


class Budget(Protocol):
    """A token bucket over bytes."""

    rate: int
    """Bytes a second."""
    reason: DropReason
    """What a packet is counted under that it does not let pass."""

    def holds(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes are there at the monotonic time ``now``."""

    def spend(self, size: int) -> None:
        """Take bytes that are there."""


class Keeper(Protocol):
    """Keeps a bucket where another plane takes of it too."""

    def holds(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes are there at the monotonic time ``now``."""

    def spend(self, size: int) -> None:
        """Take bytes that are there."""


class ByteBudget:
    """A token bucket over bytes. Holds one second's worth, so that no burst is longer."""

    __slots__ = ("_tokens", "_updated", "keeper", "rate", "reason")

    def __init__(self, rate: int, reason: DropReason, now: float) -> None:
        self.rate = rate
        self.reason = reason
        self._tokens = float(rate)
        self._updated = now
        self.keeper: Keeper | None = None
        """Who has it, if it is not here."""

    def holds(self, size: int, now: float) -> bool:
        """Whether ``size`` bytes are there at the monotonic time ``now``."""
        if self.keeper is not None:
            return self.keeper.holds(size, now)
        if now > self._updated:
            self._tokens = min(self.rate, self._tokens + (now - self._updated) * self.rate)
            self._updated = now
        return self._tokens >= size

    def spend(self, size: int) -> None:
        """Take bytes that are there."""
        if self.keeper is not None:
            self.keeper.spend(size)
            return
        self._tokens -= size

    @property
    def full(self) -> float:
        """When it will be full again, or was: a monotonic time. To be asked of one that is here."""
        return self._updated + (self.rate - self._tokens) / self.rate

    def fill(self, full: float, now: float) -> None:
        """Have it be full again at a monotonic time."""
        self._updated = now
        self._tokens = self.rate * (1 - max(0.0, full - now))


class Budgets:
    """The buckets that a packet has to pass, one way."""

    __slots__ = ("all",)

    def __init__(self, *budgets: Budget) -> None:
        self.all = budgets

    def refuse(self, size: int, now: float) -> DropReason | None:
        """None, and taken from each; or which bucket held too little, and nothing taken.

        :param size: of the packet's payload, in bytes.
        """
        size = max(size, SMALLEST)
        for budget in self.all:
            if not budget.holds(size, now):
                return budget.reason
        for budget in self.all:
            budget.spend(size)
        return None


NOBODY: Mapping[str, int] = {}


class Rates(NamedTuple):
    """Bytes a second, each way; 0: no limit."""

    allocation: int = 0
    user: int = 0
    address: int = 0
    total: int = 0
    tenants: Mapping[str, int] = NOBODY
    """Of all users of a tenant, by its name; who has no limit is not there."""


Twins = tuple[Budget, Budget]
"""A bucket for each way: to peers, to the client."""
Key = tuple[str, str]
"""What is counted, and whose: ``("user", "alice")``, ``("address", "192.0.2.7")``."""
ALL: Key = ("total", "")
Share = Callable[[Key, int, DropReason], Twins | None]
"""The buckets that this process has together with others, for somebody; None: it has its own."""
Pair = tuple[Budgets | None, Budgets | None]
"""For packets to peers, and for packets to the client; None: no limit."""


def nothing_shared(key: Key, rate: int, reason: DropReason) -> None:
    """A process that has no others beside it (``Share``)."""


class Bandwidth:
    """Hands out buckets: an allocation's own, its user's, tenant's and address's, everyone's."""

    def __init__(self, rates: Rates, share: Share = nothing_shared) -> None:
        self._rates = rates
        self.is_unlimited = not any(rates)
        """Whether nobody gets any."""
        self._share = share
        self._held: dict[Key, tuple[ByteBudget, ByteBudget]] = {}

    @property
    def is_by_address(self) -> bool:
        """Whether a client's buckets are others where it has another address."""
        return bool(self._rates.address)

    def of(self, user: str, place: Key, now: float, tenant: str = "") -> Pair:
        """The buckets of a new allocation.

        :param place: the client's address, as quotas count it.
        :param tenant: whose user it is; "": no tenant's.
        """
        rates = self._rates
        if self.is_unlimited:
            return None, None
        twins: list[Twins] = []
        if rates.allocation:
            twins.append(_pair(rates.allocation, DropReason.BANDWIDTH, now))
        for key, rate, reason in (
            (("user", user), rates.user, DropReason.USER_BANDWIDTH),
            (("tenant", tenant), rates.tenants.get(tenant, 0), DropReason.TENANT_BANDWIDTH),
            (place, rates.address, DropReason.ADDRESS_BANDWIDTH),
            (ALL, rates.total, DropReason.TOTAL_BANDWIDTH),
        ):
            if rate:
                twins.append(self._together(key, rate, reason, now))
        if not twins:  # others are limited
            return None, None
        return Budgets(*(out for out, _ in twins)), Budgets(*(back for _, back in twins))

    def _together(self, key: Key, rate: int, reason: DropReason, now: float) -> Twins:
        """The buckets of all who go by a key."""
        shared = self._share(key, rate, reason)
        if shared is None and key not in self._held:
            self._held[key] = _pair(rate, reason, now)
        return shared or self._held[key]

    def forget(self, is_active: Callable[[Key], bool], now: float) -> None:
        """Let go of those without allocations whose buckets are full, as new ones would be."""
        idle = [
            key
            for key, twins in self._held.items()
            if not is_active(key) and all(budget.holds(budget.rate, now) for budget in twins)
        ]
        for key in idle:
            del self._held[key]


def _pair(rate: int, reason: DropReason, now: float) -> tuple[ByteBudget, ByteBudget]:
    return ByteBudget(rate, reason, now), ByteBudget(rate, reason, now)
