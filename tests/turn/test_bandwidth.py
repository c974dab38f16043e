"""Token buckets: an allocation's, its user's, everyone's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.turn.world import OTHER_PEER, PEER, World, code_of
from turn.allocation.model import Limits, TenantLimits
from turn.allocation.options import Options
from turn.bandwidth import Bandwidth, ByteBudget, Rates
from turn.codec import registry
from turn.stats import DropReason

SHOP = {"shop": TenantLimits()}


def ready(world, username="alice", password="pw"):
    client = world.client(username, password)
    assert code_of(client.allocate()) == 0
    client.permit(PEER)
    return client


def test_a_bucket_holds_a_second_and_fills_as_time_passes():
    budget = ByteBudget(1000, DropReason.BANDWIDTH, 10.0)
    assert budget.holds(1000, 10.0)
    budget.spend(1000)
    assert not budget.holds(1, 10.0)
    assert budget.holds(500, 10.5)
    assert not budget.holds(501, 10.5)
    assert budget.holds(1000, 99.0)
    assert not budget.holds(1001, 99.0)
    assert not budget.holds(1001, 5.0), "a clock that goes back gives nothing"


@given(st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 0.5)), max_size=100))
def test_never_more_passes_than_the_rate_and_one_second(packets):
    sending, _ = Bandwidth(Rates(allocation=1000)).of("alice", ("address", "192.0.2.7"), 0.0)
    now, passed = 0.0, 0
    for size, pause in packets:
        now += pause
        if sending.refuse(size, now) is None:
            passed += size
    assert passed <= 1000 * (now + 1) + 1e-6


@pytest.mark.parametrize("size", [0, 1, 63, 64])
def test_small_packets_take_what_a_line_takes_for_one(size):
    """Else a flood of empty ones costs nothing, and passes whatever the limit."""
    world = World(Limits(rates=Rates(allocation=640)))
    client = ready(world)
    client.bind(0x4000, OTHER_PEER)
    for _ in range(8):
        client.send_indication(PEER, bytes(size))
        client.channel_data(0x4000, bytes(size))
        client.relay.receive(bytes(size), PEER)
        client.relay.receive(bytes(size), OTHER_PEER)
    assert len(client.relay.sent) == len(client.received) == 10
    assert world.stats.drops == {DropReason.BANDWIDTH: 12}
    assert world.routes.carried(world.engine.table.get(client.five_tuple).routes).sent_bytes == (
        10 * size
    ), "what is counted is payload"


def test_a_users_allocations_share_and_others_do_not():
    world = World(Limits(rates=Rates(user=1000)))
    one, two, other = ready(world), ready(world), ready(world, "bob", "pw2")
    for client in (one, two, other):
        client.send_indication(PEER, bytes(600))
    assert [len(client.relay.sent) for client in (one, two, other)] == [1, 0, 1]
    assert world.stats.drops == {DropReason.USER_BANDWIDTH: 1}


def test_a_new_allocation_brings_no_new_bytes():
    world = World(Limits(rates=Rates(user=1000)))
    one = ready(world)
    one.send_indication(PEER, bytes(1000))
    world.engine.close_all()
    world.engine.expire(world.monotonic)
    two = ready(world)
    two.send_indication(PEER, bytes(1000))
    assert two.relay.sent == []
    world.sleep(1)
    two.send_indication(PEER, bytes(1000))
    assert len(two.relay.sent) == 1


def test_an_address_has_a_rate_whoever_its_users_are():
    world = World(Limits(rates=Rates(address=1000)))
    one, other = ready(world), ready(world, "bob", "pw2")
    elsewhere = world.client(host="192.0.2.99")
    assert code_of(elsewhere.allocate()) == 0
    elsewhere.permit(PEER)
    for client in (one, other, elsewhere):
        client.send_indication(PEER, bytes(600))
    assert [len(client.relay.sent) for client in (one, other, elsewhere)] == [1, 0, 1]
    assert world.stats.drops == {DropReason.ADDRESS_BANDWIDTH: 1}


def test_a_tenants_users_share_and_those_of_others_do_not():
    limits = {"shop": TenantLimits(), "clinic": TenantLimits()}
    world = World(Limits(rates=Rates(tenants={"shop": 1000}), tenants=limits))
    users = [
        ("alice", "shop"), ("bob", "shop"),
        ("alice", "clinic"), ("alice", ""),
    ]  # fmt: skip
    clients = [ready(world, *world.signed(*user)) for user in users]
    for client in clients:
        client.send_indication(PEER, bytes(600))
    assert [len(client.relay.sent) for client in clients] == [1, 0, 1, 1]
    assert world.stats.drops == {DropReason.TENANT_BANDWIDTH: 1}
    limited = [world.engine.table.get(each.five_tuple).budgets for each in clients]
    assert [budgets != (None, None) for budgets in limited] == [True, True, False, False]


def test_a_tenants_bucket_goes_along_to_another_address():
    limits = Limits(rates=Rates(address=5000, tenants={"shop": 1000}), tenants=SHOP)
    world = World(limits, options=Options(mobility=True))
    client = world.client(*world.signed("alice", "shop"))
    ticket = client.allocate((registry.MOBILITY_TICKET, b"")).get(registry.MOBILITY_TICKET)
    there = world.client(client.username, host="192.0.2.99")
    there.key = client.key
    assert code_of(there.refresh((registry.MOBILITY_TICKET, ticket))) == 0
    there.permit(PEER)
    there.send_indication(PEER, bytes(600))
    there.send_indication(PEER, bytes(600))
    assert world.stats.drops == {DropReason.TENANT_BANDWIDTH: 1}


def test_the_buckets_of_those_who_are_gone_are_let_go():
    world = World(
        Limits(
            rates=Rates(user=1000, address=1000, total=1000, tenants={"shop": 1000}), tenants=SHOP
        )
    )
    ready(world, *world.signed("alice", "shop")).send_indication(PEER, bytes(1000))
    held = world.engine._allocator._bandwidth._held
    assert len(held) == 4
    world.engine.close_all()
    world.sleep(0.5)
    assert len(held) == 4, "not full yet: a new allocation would get too much"
    world.sleep(1)
    assert held == {}


def test_the_whole_relay_has_a_rate_and_each_way_its_own():
    world = World(Limits(rates=Rates(total=1000)))
    one, other = ready(world), ready(world, "bob", "pw2")
    one.send_indication(PEER, bytes(600))
    other.send_indication(PEER, bytes(600))
    assert world.stats.drops == {DropReason.TOTAL_BANDWIDTH: 1}
    other.relay.receive(bytes(600), PEER)
    assert len(other.received) == 1


def test_a_packet_that_one_bucket_refuses_takes_from_none():
    world = World(Limits(rates=Rates(allocation=500, user=1000)))
    one, two = ready(world), ready(world)
    one.send_indication(PEER, bytes(501))
    assert world.stats.drops == {DropReason.BANDWIDTH: 1}
    for client in (one, two):
        client.send_indication(PEER, bytes(500))
    assert [len(client.relay.sent) for client in (one, two)] == [1, 1]
