"""Who connects to the admin listener and asks for nothing: each connection is a descriptor."""

import asyncio

import pytest

from tests.operator_api import operator
from tests.patience import PATIENCE
from tests.turn.live import relay
from turn.admin import door
from turn.admin.journal import Journal

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture
async def connect():
    """Connects to an admin listener."""
    journal, writers = Journal(), []
    async with relay(journal.tell) as service, operator(journal, service) as api:

        async def connect(source="127.0.0.1"):
            found = await asyncio.open_connection(*api.admin.address, local_addr=(source, 0))
            writers.append(found[1])
            return found

        yield connect
        for writer in writers:
            writer.close()


async def answer(streams):
    """What a question is answered; empty: nothing, the connection has ended."""
    reader, writer = streams
    try:
        writer.write(HEALTH)
        async with asyncio.timeout(PATIENCE):
            line = await reader.readline()
            while line and await reader.readline() != b"\r\n":
                pass
            if line:
                await reader.readexactly(len(b'{"alive": true}'))
    except ConnectionError:
        return b""
    return line


async def ended(streams):
    async with asyncio.timeout(PATIENCE):
        try:
            return await streams[0].read() == b""
        except ConnectionError:
            return True


async def test_who_asks_for_nothing_is_cut_and_who_has_asked_is_not(connect, monkeypatch):
    monkeypatch.setattr(door, "FIRST_REQUEST", 0.5)
    silent, half, asks = [await connect() for _ in range(3)]
    half[1].write(HEALTH[:20])
    assert b" 200 " in await answer(asks)
    assert await ended(silent)
    await ended(half)
    assert b" 200 " in await answer(asks)


async def test_who_has_asked_may_be_idle_for_a_while(connect, monkeypatch):
    monkeypatch.setattr(door, "IDLE", 0.5)
    asks = await connect()
    assert b" 200 " in await answer(asks)
    assert await ended(asks)


async def test_an_address_has_so_many_and_the_others_are_served(connect):
    held = [await connect() for _ in range(door.MOST)]
    for streams in held:
        assert b" 200 " in await answer(streams)
    assert await answer(await connect()) == b""
    assert b" 200 " in await answer(await connect("127.0.0.2"))
    held.pop()[1].close()
    async with asyncio.timeout(PATIENCE):
        while not await answer(await connect()):  # it is heard of a moment later
            pass
