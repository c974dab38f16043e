"""A day's comings and goings, one after the other as quick as they can: allocations and joins."""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp

from signaling.protocol import SUBPROTOCOL
from tests.signaling.live import Raw
from tests.turn.live import Client
from turn.codec import registry
from turn.codec.channel import encode
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

WORKERS = 16
JOINS_PER_SESSION = 10
BY_TCP = 5
"""One allocation in so many is over TCP, and ends with its connection."""
WITHOUT_A_WORD = 5
"""One session in so many is cut, and lost by the resume window's end."""


class PatientClient(Client):
    """One that waits for a machine that is busy."""

    async def receive(self, patience: float = 60.0) -> bytes:
        return await super().receive(patience)


async def allocations(port: int, count: int) -> None:
    """Make so many: a channel, data, and the end, by UDP; by TCP the connection just goes."""
    sink, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    peer = Address(*sink.get_extra_info("sockname"))

    async def work(numbers: Iterator[int]) -> None:
        udp = await PatientClient().connect(port)
        for number in numbers:
            if number % BY_TCP:
                await _allocate(udp, peer)
                await _ask(udp, Method.REFRESH, (registry.LIFETIME, 0))
                continue
            tcp = await PatientClient().connect(port, tcp=True)
            tcp.nonce = udp.nonce
            await _allocate(tcp, peer)
            tcp.close()
        udp.close()

    await _by_workers(work, count)
    sink.close()


async def _allocate(client: Client, peer: Address) -> None:
    await client.allocate()
    channel = 0x4000 + secrets.randbelow(0x1000)
    bind = (registry.CHANNEL_NUMBER, channel), (registry.XOR_PEER_ADDRESS, peer)
    await _ask(client, Method.CHANNEL_BIND, *bind)
    await client.send(encode(channel, b"x" * 100, padded=True))


async def _ask(client: Client, method: Method, *attributes: Any) -> None:
    reply = await client.request(method, *attributes)
    assert reply.message_class is MessageClass.SUCCESS, reply.get(registry.ERROR_CODE)


async def joins(port: int, count: int) -> None:
    """Enter so many rooms, and leave them: by a word, by closing, by vanishing."""
    async with aiohttp.ClientSession() as http:

        async def work(numbers: Iterator[int]) -> None:
            while batch := list(itertools.islice(numbers, JOINS_PER_SESSION)):
                await _session(http, port, batch)

        await _by_workers(work, count)


async def _session(http: aiohttp.ClientSession, port: int, numbers: list[int]) -> None:
    url = f"ws://127.0.0.1:{port}/ws"
    ws = await http.ws_connect(url, protocols=(SUBPROTOCOL,))
    raw = Raw(ws)
    await raw.hello(name="Churn")
    for number in numbers:
        room = f"room {number % 997}"  # so that some meet
        answer = await raw.join(room)
        assert answer["type"] == "joined", answer
        if number != numbers[-1]:  # the last room is left with the session
            await raw.say(type="leave", id=f"leave {room}", room=room)
            await raw.hear("ok")
    if numbers[0] // JOINS_PER_SESSION % WITHOUT_A_WORD:
        await ws.close()
    else:
        ws._response.close()


async def _by_workers(work: Callable[[Iterator[int]], Awaitable[None]], count: int) -> None:
    numbers = iter(range(count))
    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work(numbers))  # type: ignore[arg-type]
