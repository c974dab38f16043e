"""Tenants whose users come to any of several processes: what bounds one holds for all together."""

import asyncio
import socket
import time
from typing import Any

import pytest
import pytest_asyncio

from tests.patience import PATIENCE
from tests.turn.live import UDP, Client, port_of
from tests.turn.workers.live import allocate, code_of, permit, pour, refresh, together
from turn.auth.ephemeral import mint, name_in
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.stats import DropReason
from turn.workers.messages import Claim, Take

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANTS: dict[str, dict[str, Any]] = {
    "shop": {"secret": "the secret of the shop", "max_allocations": 6},
    "clinic": {"secret": "the secret of the clinic"},
}
ASKED = (registry.MOBILITY_TICKET, b"")


@pytest_asyncio.fixture(loop_scope="session")
async def come(stage):
    """Connects users of a tenant; to which worker, the kernel says."""

    async def come(tenant: str, count: int = 1, name: str = "alice") -> list[Client]:
        await stage.pool.refresh()  # what was asked before has come into force
        secret = TENANTS[tenant]["secret"]
        user = mint(secret, name_in(tenant, name), int(time.time()) + 60)
        clients = [Client(*user) for _ in range(count)]
        stage.closing += clients
        for client in clients:
            await client.connect(port_of(stage.pool))
        return clients

    return come


async def test_a_tenants_quota_holds_for_all_processes_and_for_it_alone(stage, come):
    stage.reload(tenants=TENANTS)
    clients = await come("shop", 16)
    codes = await together(*map(allocate, clients))
    assert sorted(codes) == [0] * 6 + [486] * 10
    assert await together(*map(allocate, await come("clinic", 8))) == [0] * 8
    one = clients[codes.index(0)]
    assert await refresh(one, 0) == 0
    assert sorted(await together(*map(allocate, await come("shop", 2)))) == [0, 486]
    samples = await stage.samples()
    assert samples["icebroker_turn_tenant_allocations", "shop"] == 6
    assert samples["icebroker_turn_tenant_allocations", "clinic"] == 8


async def test_what_goes_from_one_to_another_stays_its_tenants(stage, come, between):
    stage.reload(tenants=TENANTS, mobility=True)
    kinds: set[type] = set()
    for _ in range(64):
        if kinds >= {Claim, Take}:
            break
        (first,) = await come("shop")
        wanted = UDP, ASKED, (registry.EVEN_PORT, True)
        reply = await first.request(Method.ALLOCATE, *wanted)
        token, ticket = reply.get(registry.RESERVATION_TOKEN), reply.get(registry.MOBILITY_TICKET)
        reserved = (registry.RESERVATION_TOKEN, token)
        (thief,), (second, third) = await come("clinic"), await come("shop", 2)
        assert await allocate(thief, reserved) == 508
        showing = (registry.MOBILITY_TICKET, ticket)
        assert code_of(await thief.request(Method.REFRESH, showing)) == 441
        assert await allocate(second, reserved) == 0
        moved = await third.request(Method.REFRESH, showing)
        assert moved.get(registry.MOBILITY_TICKET)
        listed = await stage.pool.collections[0].snapshot()
        assert {entry.tenant for entry in listed.values()} == {"shop"}
        assert await together(refresh(second, 0), refresh(third, 0)) == [0, 0]
        kinds = set(map(type, between))
    assert kinds >= {Claim, Take}
    await until_free(come, 6)


async def until_free(come, count):
    """Wait until a tenant's share is whole again: what has moved counts twice for a second."""
    async with asyncio.timeout(PATIENCE):
        while True:
            clients = await come("shop", count + 1)
            codes = await together(*map(allocate, clients))
            for client, code in zip(clients, codes, strict=True):
                assert code or await refresh(client, 0) == 0
            if codes.count(0) == count:
                return
            assert codes.count(0) < count


async def test_a_tenant_that_is_gone_has_nothing_at_any_process(stage, come):
    own = "the secret of the relay"  # of tenants alone, nonces would be others afterwards
    stage.reload(secret=own, tenants=TENANTS)
    shop, clinic = await come("shop", 6), await come("clinic", 6)
    assert await together(*map(allocate, shop + clinic)) == [0] * 12
    stage.reload(secret=own, tenants={"clinic": TENANTS["clinic"]})
    assert sum(await stage.allocations()) == 6
    assert await together(*map(refresh, clinic)) == [0] * 6
    assert await allocate((await come("shop"))[0]) == 401
    samples = await stage.samples()
    assert ("icebroker_turn_tenant_allocations", "shop") not in samples


async def test_a_tenants_bandwidth_is_one_bucket_and_its_bytes_are_counted(stage, come):
    rate = 20_000
    stage.reload(tenants=TENANTS | {"shop": {**TENANTS["shop"], "max_bytes_per_second": rate}})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.setblocking(False)
        peer = Address(*sink.getsockname())
        clients = await come("shop", 5) + await come("shop", 1, "bob")
        assert await together(*map(allocate, clients)) == [0] * 6
        assert await together(*(permit(client, peer) for client in clients)) == [0] * 6
        metric = "icebroker_turn_tenant_relay_bytes_total", "shop", "to_peer"
        earlier = (await stage.samples())[metric]
        came, spent = await pour(stage, clients, sink, DropReason.TENANT_BANDWIDTH)
    assert 19_000 <= came <= rate * (1 + spent) + 2000
    assert (await stage.samples())[metric] - earlier == came
    assert await together(*(refresh(client, 0) for client in clients)) == [0] * 6
    assert (await stage.samples())[metric] - earlier == came, "of those that have ended, too"
