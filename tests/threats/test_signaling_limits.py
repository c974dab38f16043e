"""Clients that cost more than they should: silent sockets, slow readers, floods of events."""

import asyncio
import contextlib
import gc
import tracemalloc

import aiohttp
import pytest

from signaling.backlog import Backlog
from tests.patience import until
from tests.signaling.live import signaling, sockets, url

LETS_GO = 4
"""Seconds until what lies for a socket that was cut is let go: many times what a test takes."""


async def refusal(connect):
    """The status that a further socket is refused with."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect()
    return refused.value.status


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "7"},
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "short",
        },
    ],
    ids=["plain", "no version", "old version", "bad key"],
)
async def test_requests_that_are_no_websocket_lock_nobody_out(headers):
    """One machine behind a NAT or a proxy that asks for /ws in vain must not shut out the rest."""
    async with (
        signaling(max_unauthenticated_per_address=2) as service,
        aiohttp.ClientSession() as http,
        sockets(service) as connect,
    ):
        for _ in range(5):
            async with http.get(url(service, "/ws"), headers=headers) as response:
                assert response.status == 400
        await (await connect()).hello()


async def test_sockets_that_went_before_hello_lock_nobody_out():
    """Connections that are opened and dropped at once leave no trace."""
    async with (
        signaling(max_unauthenticated_per_address=2) as service,
        sockets(service) as connect,
    ):
        for _ in range(6):
            one = await connect()
            one.ws._response.connection.transport.abort()
            await until(lambda: service._websockets.connections == 0)
        await (await connect()).hello()


async def test_silent_sockets_are_bounded_for_an_address_and_time_out():
    """Half-open clients: a place is had by a hello, or again when their time is up."""
    async with (
        signaling(max_unauthenticated_per_address=2, hello_timeout=3) as service,
        sockets(service) as connect,
    ):
        silent = [await connect() for _ in range(2)]
        assert await refusal(connect) == 429
        for socket in silent:
            assert await socket.closed() == 4502
        await (await connect()).hello()


async def test_sockets_in_all_are_bounded():
    """Many addresses at once: what is over the limit is told so before it costs a session."""
    async with signaling(max_connections=2) as service, sockets(service) as connect:
        first, second = await connect(), await connect()
        await first.hello()
        await second.hello()
        assert await refusal(connect) == 503
        await first.ws.close()
        await until(lambda: service._websockets.connections == 1)
        await (await connect()).hello()


@pytest.mark.parametrize("acknowledging", [False, True])
async def test_a_reader_that_stalls_costs_bounded_memory(acknowledging):
    """A client that never reads, while others send to its room: it is cut, they go on.

    One that acknowledges what it did not read empties its mailbox, but not its socket's queue.
    """
    async with (
        signaling(
            max_messages_per_second=100_000,
            max_message_burst=100_000,
            max_queued_bytes=200_000,
            write_timeout=LETS_GO,
        ) as service,
        sockets(service) as connect,
    ):
        slow, busy = await connect(), await connect()
        await slow.hello()
        await busy.hello()
        await slow.join("r")
        await busy.join("r")
        slow.ws._response.connection.transport.pause_reading()
        data = "x" * 50_000
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(400):  # 20 MB
                await busy.say(type="message", id=str(number), data=data)
                await busy.hear("ok", "error")
                if acknowledging and service.stats.disconnects.total() == 0:
                    await slow.say(type="ack", seq=number + 1)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 4_000_000
        await busy.say(type="ping", t=1)
        assert (await busy.hear("pong"))["t"] == 1
        await until(lambda: service._websockets.backlog.bytes == 0)


async def test_slow_readers_together_cost_bounded_memory():
    """However many they are: beyond what all may let lie each is cut much earlier."""
    async with (
        signaling(
            max_messages_per_second=100_000, max_message_burst=100_000, write_timeout=LETS_GO
        ) as service,
        sockets(service) as connect,
    ):
        backlog = service._websockets.backlog = Backlog(most_bytes=1_000_000)
        slow = [await connect() for _ in range(4)]
        busy = await connect()
        for one in (*slow, busy):
            await one.hello()
            await one.join("r")
        for one in slow:
            one.ws._response.connection.transport.pause_reading()
        most = number = 0
        while service.stats.disconnects["slow_reader"] < 4:
            number += 1
            await busy.say(type="message", id=str(number), data="x" * 60_000)
            await busy.hear("ok", "error")
            most = max(most, backlog.bytes)
            for one in slow:  # an empty mailbox, and a full queue
                with contextlib.suppress(ConnectionError):
                    await one.say(type="ack", seq=number)
        assert 900_000 < most < 1_300_000
        await until(lambda: backlog.bytes == 0)


async def test_a_flood_ends_one_socket_and_no_other():
    """The rate is a client's own: a flooder is answered, then cut, and its neighbour is served."""
    async with (
        signaling(max_messages_per_second=5, max_message_burst=10) as service,
        sockets(service) as connect,
    ):
        flooder, good = await connect(), await connect()
        await flooder.hello()
        await good.hello()
        for number in range(150):
            await flooder.say(type="ping", t=number)
        await good.say(type="ping", t=1)
        assert (await good.hear())["type"] == "pong"
        assert await flooder.closed() == 4504
        await until(lambda: service.stats.disconnects["flood"] == 1)
        assert service.stats.dropped["rate_limited"] >= 100


@pytest.mark.parametrize("ending", ["left", "lost", "silent"])
async def test_a_socket_that_ended_leaves_nothing_for_the_collector(ending):
    """Garbage in cycles makes the collector look through all that live: everybody waits for it."""
    async with signaling() as service, sockets(service) as connect:

        async def come_and_go():
            one = await connect()
            if ending != "silent":
                await one.hello()
                await one.join("r")
            if ending == "left":
                await one.ws.close()
            else:
                one.ws._response.connection.transport.abort()

        await come_and_go()
        await asyncio.sleep(1.2)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(5):
                await come_and_go()
            await until(lambda: service._websockets.connections == 0)
            await asyncio.sleep(1.2)
            gc.collect()
            server_side = [type(thing).__module__ for thing in gc.garbage]
            assert not [name for name in server_side if name.startswith(("aiohttp.web", "signal"))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
