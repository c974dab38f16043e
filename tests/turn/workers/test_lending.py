"""What bounds a connection that is lent: the same buckets, at whichever worker its bytes pass."""

import time
from typing import Any

import pytest

from tests.turn.world import World
from turn.allocation.model import Allocation, Limits, TenantLimits
from turn.bandwidth import Budgets, Rates
from turn.codec import registry
from turn.codec.registry import Method
from turn.lending import share_rates, shared_rates
from turn.routes import Transport
from turn.stats import DropReason
from turn.workers.books import SharedBooks
from turn.workers.ledger import Full, Ledger
from turn.workers.memory import Memory

RATE = 1000


@pytest.fixture
def ledger():
    memory = Memory.create(2)
    yield Ledger(memory, b"s" * 32)
    memory.close()


@pytest.fixture
def books(ledger):
    """Those of two workers."""
    return [SharedBooks(ledger, worker, lambda *_: None) for worker in range(2)]


def begin(books: SharedBooks, **rates: Any) -> Allocation:
    """An allocation for TCP at the worker of these books."""
    tenants = {"shop": TenantLimits()} if "tenants" in rates else {}
    world = World(Limits(rates=Rates(**rates), tenants=tenants), books=books)
    world.monotonic = time.monotonic()
    world.opener.tcp = True
    user = world.signed("alice", "shop") if tenants else ("alice", "pw")
    client = world.client(*user, transport=Transport.TCP)
    client.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
    found = world.engine.table.get(client.five_tuple)
    assert found is not None
    return found


def ways(pair: tuple[Budgets | None, Budgets | None]) -> tuple[Budgets, Budgets]:
    """There are limits."""
    out, back = pair
    assert out is not None
    assert back is not None
    return out, back


@pytest.mark.parametrize(
    ("limit", "rate", "reason"),
    [
        ("allocation", RATE, DropReason.BANDWIDTH),
        ("user", RATE, DropReason.USER_BANDWIDTH),
        ("tenants", {"shop": RATE}, DropReason.TENANT_BANDWIDTH),
        ("address", RATE, DropReason.ADDRESS_BANDWIDTH),
        ("total", RATE, DropReason.TOTAL_BANDWIDTH),
    ],
)
def test_what_passes_here_is_taken_there_too_each_way_by_itself(books, limit, rate, reason):
    allocation = begin(books[0], **{limit: rate})
    now = time.monotonic()
    (out, back) = ways(allocation.budgets)
    assert out.refuse(300, now) is None
    there, there_back = ways(shared_rates(share_rates(allocation, books[0], now), books[1], now))
    assert there.refuse(600, now) is None
    assert there.refuse(200, now) == out.refuse(200, now) == reason
    assert back.refuse(RATE, now) is None
    assert there_back.refuse(1, now) == reason
    again, _ = ways(shared_rates(share_rates(allocation, books[0], now), books[1], now))
    assert again.refuse(200, now) == reason, "another loan is no other bucket"
    assert again.refuse(90, now) is None


def test_without_limits_there_is_nothing_to_share(books):
    allocation = begin(books[0])
    assert share_rates(allocation, books[0], 0.0) == []
    assert shared_rates([], books[1], 0.0) == (None, None)


def test_a_full_ledger_bounds_each_worker_by_itself(books, ledger, monkeypatch):
    allocation = begin(books[0], allocation=RATE)

    def full(key):
        raise Full

    monkeypatch.setattr(ledger, "find_or_make", full)
    now = time.monotonic()
    there, _ = ways(shared_rates(share_rates(allocation, books[0], now), books[1], now))
    assert there.refuse(RATE, now) is None
    assert there.refuse(1, now) == DropReason.BANDWIDTH
