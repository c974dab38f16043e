"""The doors in front of the relay under mutated bytes: DTLS handshakes and sessions, PROXY headers.

Everything of a real handshake is mutated at its step, so that what is behind a good cookie, or
inside a session, is reached as well. ``FUZZ_DOORS`` lets it run for longer.
"""

import asyncio
import contextlib
import os
import random

import pytest
from OpenSSL import SSL

from tests.fuzz import seeds
from tests.fuzz.mutate import Mutator
from tests.fuzz.test_relay import SEED, SETTINGS, Sender, descriptors
from tests.patience import until
from tests.turn.codec.test_proxy import header
from tests.turn.live import UDP, Client, port_of, relay
from tests.turn.secure import DtlsClient, everywhere
from turn.codec import registry
from turn.codec.registry import MessageClass, Method
from turn.stats import DropReason
from turn.transport.dtls import datagrams_of

ROUNDS = int(os.environ.get("FUZZ_DOORS", "100"))
A_ROUND = 60
"""Mutated datagrams of one client."""
PROXY = "127.0.0.9"


@pytest.fixture
async def complaints():
    """What the event loop had to complain about: an exception that reached it."""
    found: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    return found


def written(client: DtlsClient) -> list[bytes]:
    """The client's next flight."""
    with contextlib.suppress(SSL.WantReadError):
        client.connection.do_handshake()
    return list(datagrams_of(client.connection))


async def flight(client: DtlsClient, step: int) -> list[bytes]:
    """What a client sends at a step of its handshake, those before it being done."""
    datagrams = written(client)
    for _ in range(step):
        for datagram in datagrams:
            await Client.send(client, datagram)
        datagrams = []
        while not datagrams:
            client.connection.bio_write(await Client.receive(client))
            datagrams = written(client)
    return datagrams


async def flood(client: Client, packets: list[bytes]) -> None:
    """Send them, with pauses in which they are handled."""
    for count, packet in enumerate(packets):
        with contextlib.suppress(OSError):  # an ICMP error, or longer than a datagram
            client.sock.send(packet)
        if count % 10 == 0:
            await asyncio.sleep(0)


async def test_dtls(complaints, tmp_path):
    chance = random.Random(SEED)
    async with relay(**SETTINGS, **everywhere(tmp_path)) as service:
        port = port_of(service, "dtls")

        async def check_served() -> None:
            honest = await DtlsClient().connect(port)
            await honest.shake()
            reply = await honest.request(Method.ALLOCATE, UDP)
            assert reply.message_class == MessageClass.SUCCESS, f"seed {SEED}"
            await honest.request(Method.REFRESH, (registry.LIFETIME, 0))
            honest.connection.shutdown()
            await honest.flush()
            honest.close()

        await check_served()
        before = descriptors()
        listener = next(
            each for each in service._listeners._datagram.values() if each.protocol == "dtls"
        )
        begun = 0
        for number in range(ROUNDS):
            client, step = await DtlsClient().connect(port), number % 4
            if step == 3:  # inside of a session: messages that nobody else can have made
                await client.shake()
                await client.allocate()
                sender = Sender(client, chance.getrandbits(32))
                for _ in range(A_ROUND):
                    with contextlib.suppress(SSL.Error, OSError):
                        client.connection.send(sender.packet() or b"\0")
                        await client.flush()
                good = [b"\x17\xfe\xfd\0\1" + bytes(6) + b"\0\x30" + bytes(48)]
            else:
                good = await flight(client, step)
            mutator = Mutator(good, chance.getrandbits(32))
            await flood(client, [mutator.packet() for _ in range(A_ROUND)])
            await flood(client, good)  # and the real one goes on as if nothing had been
            await asyncio.sleep(0.001)
            begun += len(listener._sessions)  # type: ignore[attr-defined]  # a DtlsListener
            client.close()
            # The next client may be on its port, and must not hear what this one did not wait for.
            for session in list(listener._sessions.values()):  # type: ignore[attr-defined]
                listener._end(session)  # type: ignore[attr-defined]
        assert begun > ROUNDS / 4, "no cookie was good: what is behind it was not reached"
        await check_served()
        service._engine.close_all()
        listener.tick()
        assert descriptors() <= before, f"seed {SEED}"
        assert complaints == [], f"seed {SEED}"


async def test_proxy_headers(complaints):
    chance = random.Random(SEED)
    heads = [header("192.0.2.7", 40000), header("2001:db8::7", 40000), header("192.0.2.8", 1)]
    allocate = Client().encode(Method.ALLOCATE, UDP)
    mutator = Mutator(
        [*heads, *(head + each for head in heads for each in (allocate, *seeds.STUN))],
        chance.getrandbits(32),
    )
    async with relay(**SETTINGS, proxy_protocol_from=[f"{PROXY}/32"]) as service:
        drops, before = service.stats.drops, descriptors()
        for _ in range(ROUNDS):
            for tcp in (False, True):
                name = "tcp" if tcp else "udp"
                client = await Client().connect(port_of(service, name), tcp=tcp, source=PROXY)
                await flood(client, [mutator.packet() for _ in range(1 if tcp else A_ROUND)])
                client.close()
        await until(lambda: drops[DropReason.NO_PROXY_HEADER] > ROUNDS)
        assert service.stats.requests.total() > ROUNDS, "all were dropped at the door"
        honest = await Client().connect(port_of(service))
        assert (await honest.request(Method.ALLOCATE, UDP)).message_class == MessageClass.SUCCESS
        honest.close()
        service._engine.close_all()
        (stream,) = service._listeners._streams
        await until(lambda: not stream.connections and not stream._tasks - {_accepting(stream)})
        await until(lambda: descriptors() <= before)
        assert complaints == [], f"seed {SEED}"


def _accepting(stream):
    """The task that goes on as long as the listener does."""
    return min(stream._tasks, key=lambda task: int(task.get_name().rpartition("-")[2]))
