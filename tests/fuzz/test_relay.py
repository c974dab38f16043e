"""The live relay under mutated messages: it drops, it answers, it never breaks.

Half of the senders have authenticated and own an allocation, so that what lies behind
authentication is reached too. Bounded in number; the seed of a failure is in its message.
"""

import asyncio
import random

import pytest

from tests.turn.live import UDP, port_of, relay
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

ROUNDS = 30_000
PEER = Address("127.0.0.1", 9)


def seeds(client):
    """Good messages of every kind."""
    peer = (registry.XOR_PEER_ADDRESS, PEER)
    return [
        client.encode(Method.BINDING),
        client.encode(Method.ALLOCATE, UDP, (registry.EVEN_PORT, True)),
        client.encode(Method.ALLOCATE, UDP, (registry.RESERVATION_TOKEN, bytes(8))),
        client.encode(Method.REFRESH, (registry.LIFETIME, 600)),
        client.encode(Method.CREATE_PERMISSION, peer, peer),
        client.encode(Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4000), peer),
        build(
            Method.SEND, MessageClass.INDICATION, bytes(12), (peer, (registry.DATA, b"hello")),
            integrity=Integrity.NONE, fingerprint=True,
        ),
        b"\x40\x00\x00\x05hello\x00\x00\x00",
    ]  # fmt: skip


def mutate(data, chance):
    """Change a message a little, as an attacker or a broken network would."""
    mutated = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(mutated)) if mutated else 0
        match chance.randrange(6):
            case 0 if mutated:
                mutated[place] = chance.randrange(256)
            case 1 if mutated:
                mutated[place] ^= 1 << chance.randrange(8)
            case 2:
                del mutated[place:]
            case 3:
                mutated[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 4:
                lie = chance.choice((0, 4, 65532, 65535, max(len(mutated) - 20, 0)))
                mutated[2:4] = lie.to_bytes(2)
            case 5:
                mutated[place : place + 4] = chance.choice(
                    (b"\x00\x08\x00\x14", b"\x80\x28\x00\x04", b"\x00\x12\x00\x08", b"\xff" * 4)
                )
    return bytes(mutated)


@pytest.fixture
async def complaints():
    """What the event loop had to complain about: an exception that reached it."""
    found = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


@pytest.mark.parametrize("authenticated", [False, True])
async def test_mutated_datagrams(connect, complaints, authenticated):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    async with relay() as service:
        client = await connect(port_of(service))
        await client.request(Method.REFRESH)  # to have a nonce
        if authenticated:
            await client.allocate()
        messages = seeds(client)
        for number in range(ROUNDS):
            await client.send(mutate(chance.choice(messages), chance))
            if number % 50 == 0:
                await asyncio.sleep(0)
        stats = service.stats
        handled = stats.requests.total() + stats.drops.total() + stats.sent_packets
        assert handled > ROUNDS * 0.9, "most of it never arrived"
        honest = await connect(port_of(service))
        reply = await honest.request(Method.ALLOCATE, UDP)
        assert reply.message_class == MessageClass.SUCCESS, f"seed {seed}"
        assert complaints == [], f"seed {seed}"


async def test_mutated_streams(connect, complaints):
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    async with relay(max_unauthenticated_per_address=10_000) as service:
        port = port_of(service, "tcp")
        first = await connect(port, tcp=True)
        await first.request(Method.REFRESH)
        messages = seeds(first)
        for _ in range(ROUNDS // 20):
            client = await connect(port, tcp=True)
            stream = b"".join(mutate(chance.choice(messages), chance) for _ in range(20))
            try:
                while stream:
                    size = chance.randrange(1, 200)
                    await client.send(stream[:size])
                    stream = stream[size:]
            except ConnectionError:
                pass
            client.close()
        honest = await connect(port, tcp=True)
        reply = await honest.request(Method.ALLOCATE, UDP)
        assert reply.message_class == MessageClass.SUCCESS, f"seed {seed}"
        assert complaints == [], f"seed {seed}"
