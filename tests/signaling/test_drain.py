"""Nodes that end, and storms of clients: everyone is told where not to go, and when to return."""

import asyncio
import time

import aiohttp
import pytest

from signaling.client import Client
from signaling.protocol.errors import CloseCode
from tests.patience import PATIENCE, until
from tests.signaling.live import on, signaling, sockets, url

DRAIN = 3.0


async def test_clients_of_a_node_that_ends_are_spread_over_the_time_that_there_is(server):
    redis = on(server)
    async with signaling(redis) as one, sockets(one) as connect:
        clients = [await connect() for _ in range(20)]
        for client in clients:
            await client.hello()
        draining = asyncio.create_task(one.drain(DRAIN))
        deadlines = [(await client.hear("goaway"))["deadline"] for client in clients]
        draining.cancel()
    assert all(0 < deadline < DRAIN for deadline in deadlines)
    assert max(deadlines) - min(deadlines) > DRAIN / 4
    assert len(set(deadlines)) > 10


async def test_a_client_moves_to_another_node_and_nobody_notices(server):
    redis = on(server)
    async with (
        signaling(redis) as one,
        signaling(redis) as two,
        sockets(one) as connect,
        sockets(two) as connect_to_two,
    ):
        mover, other = await connect(), await connect_to_two()
        welcome = await mover.hello()
        await mover.join("r")
        peer = (await other.hello())["peer"]
        await other.join("r")
        joined = await mover.hear("peer")
        draining = asyncio.create_task(one.drain(2 * PATIENCE))
        await mover.hear("goaway")
        await mover.say(type="message", id="1", to=peer, data="from the old node")
        await mover.hear("ok")
        moved = await connect_to_two()
        resume = {key: welcome[key] for key in ("session", "secret")}
        back = await moved.hello(resume={**resume, "seq": joined["seq"]})
        assert (back["resumed"], back["peer"]) == (True, welcome["peer"])
        await moved.say(type="message", id="2", to=peer, data="from the new node")
        heard = [await other.hear("message", "peer") for _ in range(2)]
        # No suspended, no resumed, no leave: the new socket was there before the old one went.
        assert [event.get("data") for event in heard] == [
            "from the old node", "from the new node",
        ]  # fmt: skip
        frame = await mover.ws.receive()
        assert (frame.type, frame.data) == (aiohttp.WSMsgType.CLOSE, CloseCode.REPLACED)
        await asyncio.wait_for(draining, PATIENCE)


async def test_a_node_that_ends_sends_new_clients_elsewhere_at_times_of_their_own(server):
    redis = on(server)
    async with signaling(redis) as one, signaling(redis) as two, sockets(one) as connect:
        await (await connect()).hello()
        draining = asyncio.create_task(one.drain(DRAIN))
        await asyncio.sleep(0)
        waits = set()
        for _ in range(30):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect()
            assert refused.value.status == 503
            assert refused.value.headers is not None
            waits.add(int(refused.value.headers["Retry-After"]))
        assert waits <= set(range(1, 6))
        assert len(waits) > 1
        async with Client(url(two, "/ws", "ws")) as client:
            await client.join("r")
        draining.cancel()


async def test_a_node_that_is_behind_turns_newcomers_away_and_keeps_those_who_are_in():
    async with signaling() as one, sockets(one) as connect:
        there = await connect()
        await there.hello()
        one._websockets.most_lag = 1.0
        time.sleep(3.0)  # noqa: ASYNC251 - as in a storm: nothing else gets its turn
        await until(lambda: one._websockets.lag > 1.0)
        assert one._ticker is not None
        one._ticker.cancel()  # what it has seen stays, however long this takes
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect()
        assert refused.value.status == 503
        assert "Retry-After" in (refused.value.headers or {})
        await there.say(type="ping", t=1)
        await there.hear("pong")
        one._ticker = asyncio.create_task(one._tick())
        await until(lambda: one._websockets.lag < 1.0)  # it has caught up
        await (await connect()).hello()
