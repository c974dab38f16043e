"""The live relay under mutated messages: it drops, it answers, it never breaks.

Half of the senders have authenticated, and sign what they have mutated, so that what lies behind
authentication is reached with every kind of nonsense. Bounded in number; the whole of it, ten
million datagrams and a million frames, is had with ``FUZZ_DATAGRAMS`` and ``FUZZ_FRAMES``. A
failure names its seed, and ``FUZZ_SEED`` repeats it.
"""

import asyncio
import contextlib
import gc
import os
import random
from pathlib import Path

import pytest

from tests.fuzz import seeds
from tests.fuzz.mutate import Mutator
from tests.patience import until
from tests.turn.live import UDP, Client, port_of, relay
from turn.codec import registry
from turn.codec.integrity import Integrity, digest
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

DATAGRAMS = int(os.environ.get("FUZZ_DATAGRAMS", "40000"))
FRAMES = int(os.environ.get("FUZZ_FRAMES", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.randrange(1, 1 << 32)
A_CLIENT = 500
"""Datagrams of one client, before another one comes."""
A_CONNECTION = 20
"""Frames of one connection, if it lasts that long."""
PEER = (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", 9))
SETTINGS = {"tcp_allocations": True, "mobility": True, "max_unauthenticated_per_address": 10_000}
END = (registry.LIFETIME, 0)


def good(client: Client) -> list[bytes]:
    """Good messages of a client's, without their integrity."""
    both = (registry.ADDITIONAL_ADDRESS_FAMILY, 2)
    messages = [
        client.encode(Method.ALLOCATE, UDP, (registry.EVEN_PORT, True)),
        client.encode(Method.ALLOCATE, UDP, both, (registry.MOBILITY_TICKET, b"")),
        client.encode(Method.ALLOCATE, UDP, (registry.RESERVATION_TOKEN, bytes(8))),
        client.encode(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6)),
        client.encode(Method.REFRESH, (registry.LIFETIME, 600)),
        client.encode(Method.REFRESH, (registry.MOBILITY_TICKET, bytes(8))),
        client.encode(Method.CREATE_PERMISSION, PEER, PEER),
        client.encode(Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4000), PEER),
        client.encode(Method.CONNECT, PEER),
        client.encode(Method.CONNECTION_BIND, (registry.CONNECTION_ID, 7)),
    ]
    return [message[:-24] for message in messages]


def signed(data: bytes, key: bytes) -> bytes:
    """A message with a right MESSAGE-INTEGRITY, whatever is in it."""
    data += bytes(-len(data) % 4)
    covered = data[:2] + (len(data) + 4 & 0xFFFF).to_bytes(2) + data[4:]
    return covered + b"\x00\x08\x00\x14" + digest(Integrity.SHA1, key, covered)


class Sender:
    """An endless source of a client's messages: strangers' ones, and such as it has signed."""

    def __init__(self, client: Client, seed: int) -> None:
        self._key = client.key
        self._any = Mutator(seeds.ALL, seed)
        self._own = Mutator(good(client), seed + 1)
        self.chance = self._any.random

    def packet(self) -> bytes:
        if self.chance.random() < 0.5:
            return self._any.packet()
        data = self._own.packet()
        return signed(data, self._key) if len(data) >= 20 else data


@pytest.fixture
async def complaints():
    """What the event loop had to complain about: an exception that reached it."""
    found: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


def descriptors() -> int:
    """How many this process has, without those that earlier tests have not let go of yet."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


async def come(port: int, *, tcp: bool = False) -> Client:
    """A client that has a nonce."""
    client = await Client().connect(port, tcp=tcp)
    with contextlib.suppress(TimeoutError):
        await client.request(Method.REFRESH)
    return client


async def check_served(service, port: int, *, tcp: bool) -> None:
    """The next honest client is served as if nothing had been."""
    honest = await Client().connect(port, tcp=tcp)
    reply = await honest.request(Method.ALLOCATE, UDP)
    assert reply.message_class == MessageClass.SUCCESS
    await honest.request(Method.REFRESH, END)
    honest.close()


async def until_nobody_is_there(service) -> None:
    """Wait until every connection is gone."""
    (listener,) = service._listeners._streams
    await until(lambda: not (listener.connections))


async def test_mutated_datagrams(complaints):
    chance = random.Random(SEED)
    async with relay(**SETTINGS) as service:
        port, stats = port_of(service), service.stats
        await check_served(service, port, tcp=False)
        before = descriptors()
        for number in range(DATAGRAMS // A_CLIENT):
            client = await come(port)
            # What the last one sent has been handled by now, and this one may be on its port.
            service._engine.close_all()
            if number % 2:
                await client.allocate()
            sender = Sender(client, chance.getrandbits(32))
            for count in range(A_CLIENT):
                with contextlib.suppress(OSError):  # an ICMP error, or longer than a datagram
                    client.sock.send(sender.packet())
                if count % 25 == 0:
                    await asyncio.sleep(0)
            client.close()

        def handled() -> int:
            return stats.requests.total() + stats.drops.total() + stats.sent_packets

        await until(lambda: handled() > DATAGRAMS * 0.8)  # else most of it never arrived
        assert len({code for _, code in stats.responses}) >= 7, stats.responses
        await check_served(service, port, tcp=False)
        # All that waited in the queue before it has been handled by now; some of it allocated.
        service._engine.close_all()
        await asyncio.sleep(0)
        assert descriptors() <= before, f"seed {SEED}"
        assert complaints == [], f"seed {SEED}"


async def test_mutated_streams(complaints):
    chance = random.Random(SEED)
    async with relay(**SETTINGS) as service:
        port = port_of(service, "tcp")
        await check_served(service, port, tcp=True)
        await until_nobody_is_there(service)
        before = descriptors()
        nonce, sent = (await come(port, tcp=True)), 0
        while sent < FRAMES:
            client = await Client().connect(port, tcp=True)
            client.nonce = nonce.nonce
            sender = Sender(client, chance.getrandbits(32))
            # Most of a stream is well-formed, or it would end with its first frame.
            frames = [
                sender.packet() if chance.random() < 0.3 else client.encode(Method.REFRESH)
                for _ in range(A_CONNECTION)
            ]
            frames[0] = client.encode(Method.ALLOCATE, UDP)
            with contextlib.suppress(ConnectionError):
                for chunk in sender._any.chunks(b"".join(frames)):
                    await client.send(chunk)
                    await asyncio.sleep(0)
            client.close()
            sent += A_CONNECTION
        nonce.close()
        await until_nobody_is_there(service)
        service._engine.close_all()
        await check_served(service, port, tcp=True)
        await until_nobody_is_there(service)
        assert descriptors() <= before, f"seed {SEED}"
        assert complaints == [], f"seed {SEED}"
