"""A back end that says who clients are, asked by each of several workers on its own."""

import pytest
import pytest_asyncio

from tests.receiver import receiver
from tests.turn.asked import asked, asking, knows
from tests.turn.workers.live import allocate, refresh, together
from turn.codec import registry
from turn.codec.registry import Method

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def back_end():
    async with receiver() as running:
        knows(running, alice="pw")
        yield running


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_each_worker_asks_and_their_counts_are_one(stage, back_end, protocol):
    stage.reload(**asking(back_end))
    before = await stage.samples()
    clients = await stage.clients(16, protocol)
    assert await together(*map(allocate, clients)) == [0] * 16
    assert min(await stage.allocations()) > 0
    samples, name = await stage.samples(), "icebroker_turn_user_decisions_total"
    counted = samples[name, "allowed"] - before[name, "allowed"]
    assert counted == len(asked(back_end)) >= 2
    back_end.says(404)
    stranger = (await stage.clients(1, protocol))[0]
    stranger.username = "mallory"
    assert await allocate(stranger) == 401
    back_end.says(500)
    assert await together(*map(refresh, clients)) == [0] * 16


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_a_client_that_comes_to_another_worker_with_its_ticket_takes_its_key_along(
    stage, back_end, protocol
):
    """The second worker asks once, and then goes on with the allocation without asking."""

    stage.reload(**asking(back_end, mobility=True, user_cache=0))
    (client,) = await stage.clients(1, protocol)
    reply = await client.request(
        Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 17), (registry.MOBILITY_TICKET, b"")
    )
    before, moved = await stage.allocations(), False
    while not moved:
        ticket = reply.get(registry.MOBILITY_TICKET)
        (client,) = await stage.clients(1, protocol)
        reply = await client.request(Method.REFRESH, (registry.MOBILITY_TICKET, ticket))
        assert reply.get(registry.ERROR_CODE) is None
        moved = await stage.allocations() != before
    back_end.says(500)
    stage.reload(**asking(back_end, mobility=True, user_cache=0))
    await stage.pool.refresh()
    client.nonce = None
    assert await refresh(client) == 0
