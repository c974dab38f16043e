"""A client that changes its network comes to any worker, and its allocation with it (RFC 8016)."""

import pytest

from tests.turn.live import UDP, Client, port_of
from tests.turn.workers.live import (
    allocate,
    code_of,
    permit,
    refresh,
    say,
    together,
)
from turn.codec import registry
from turn.codec.registry import Method
from turn.stats import DropReason
from turn.workers.messages import Take

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASKED = (registry.MOBILITY_TICKET, b"")


async def move(client, ticket):
    """Show a ticket; gives the next one, or the code of the reply."""
    reply = await client.request(Method.REFRESH, (registry.MOBILITY_TICKET, ticket))
    return reply.get(registry.MOBILITY_TICKET) or code_of(reply)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_an_allocation_goes_along_with_all_that_it_had(stage, between, protocol):
    stage.reload(mobility=True, allow_peers=[], max_allocations_per_user=9)
    (other,) = await stage.clients(1)
    at_other = await other.allocate()

    async def roam(first, second, third):
        reply = await first.request(Method.ALLOCATE, UDP, ASKED)
        relayed, ticket = (
            reply.get(each) for each in (registry.XOR_RELAYED_ADDRESS, registry.MOBILITY_TICKET)
        )
        assert await together(permit(first, at_other), permit(other, relayed)) == [0, 0]
        before = first
        for client in (second, third):
            used, ticket = ticket, await move(client, ticket)
            assert isinstance(ticket, bytes)
            assert await refresh(before) == 437
            assert await move(before, used) == 400, "a ticket is good once"
            assert await say(client, at_other, other, b"here I am now") is True
            assert await say(other, relayed, client, b"I hear you") is True
            before = client
        return third

    moved = []
    for _ in range(8):  # one after another, since they all talk with the same peer
        first = (await stage.clients(1))[0]
        moved.append(await roam(first, *await stage.clients(2, protocol)))
    assert sum(isinstance(message, Take) for message in between) > 0
    assert sum(await stage.allocations()) == 9
    assert await allocate((await stage.clients(1))[0]) == 486
    assert set(await together(*(refresh(client, 0) for client in moved))) == {0}
    assert await stage.allocations() in ([1, 0], [0, 1])
    assert set(await together(*map(allocate, await stage.clients(8)))) == {0}
    assert stage.pool.collector.stats().drops[DropReason.SEND_FAILED] == 0


async def test_not_for_another_user_nor_where_there_is_an_allocation(stage, between):
    stage.reload(mobility=True, users={"alice": "pw", "bob": "pw"})
    for number, client in enumerate(await stage.clients(64)):
        if number >= 8 and any(isinstance(message, Take) for message in between):
            break  # one of them asked another worker than the one that has the allocation
        ticket = (await client.request(Method.ALLOCATE, UDP, ASKED)).get(registry.MOBILITY_TICKET)
        thief = Client("bob")
        await thief.connect(port_of(stage.pool))
        assert await move(thief, ticket) == 441
        assert await move(thief, ticket[:2] + b"00" * 23) == 400
        assert await allocate(thief) == 0
        assert await move(thief, ticket) in {437, 441}
        assert await refresh(client) == 0
        thief.close()
    assert any(isinstance(message, Take) for message in between)


async def test_the_new_address_has_its_share(stage):
    """All clients here are of one address: moving within it takes none of its share anew."""
    stage.reload(mobility=True, max_allocations_per_address=6)
    for client in await stage.clients(6):
        ticket = (await client.request(Method.ALLOCATE, UDP, ASKED)).get(registry.MOBILITY_TICKET)
        (new,) = await stage.clients(1)
        assert isinstance(await move(new, ticket), bytes)
    assert await allocate((await stage.clients(1))[0]) == 486
