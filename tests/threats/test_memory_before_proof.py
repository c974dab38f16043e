"""Strangers leave nothing in memory: whoever sends much must not make us keep much."""

import socket
import tracemalloc
from pathlib import Path

import pytest

import turn
from tests.patience import until
from tests.turn.live import Client, port_of, relay
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build
from turn.codec.registry import MessageClass, Method

OURS = tracemalloc.Filter(inclusive=True, filename_pattern=f"{Path(turn.__file__).parent}/*")
SOURCES = 3000
WARM = 1500
"""Sources that fill the caches, which are bounded, before the measurement begins."""
FORGED = build(
    Method.ALLOCATE, MessageClass.REQUEST, bytes(12),
    ((registry.USERNAME, "1999999999:x"), (registry.REALM, "r"), (registry.NONCE, "made up")),
    key=bytes(16), integrity=Integrity.SHA1,
)  # fmt: skip


async def flood(service, message, sources):
    """One message from each of many addresses; a burst at a time, so that none is lost."""
    requests, port = service.stats.requests, port_of(service)
    wanted = requests.total()
    for number in sources:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((f"127.1.{number >> 8}.{number & 255}", 0))
            sock.sendto(message, ("127.0.0.1", port))
        wanted += 1
        if number % 50 == 49:
            await answered(requests, wanted)
    await answered(requests, wanted)


async def answered(requests, wanted):
    """All have come: a table that is not full yet would grow later, while it is measured."""
    await until(lambda: requests.total() >= wanted)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(Client().encode(Method.BINDING), id="Binding"),
        pytest.param(Client().encode(Method.ALLOCATE), id="Allocate"),
        pytest.param(FORGED, id="Allocate with a forged nonce"),
    ],
)
async def test_no_object_stays_for_a_source_that_proved_nothing(message):
    """A flood from forged addresses: the nonce is a keyed hash, the reply limit a fixed table."""
    async with relay(secret="a secret of thirty-two characters") as service:
        tracemalloc.start()
        try:
            await flood(service, message, range(WARM))
            before = tracemalloc.take_snapshot().filter_traces((OURS,))
            handled = service.stats.requests.total()
            await flood(service, message, range(WARM, WARM + SOURCES))
            assert service.stats.requests.total() - handled > SOURCES * 0.9
            after = tracemalloc.take_snapshot().filter_traces((OURS,))
        finally:
            tracemalloc.stop()
        growth = sum(entry.size_diff for entry in after.compare_to(before, "filename"))
        assert growth < SOURCES * 10  # bytes; an object a source would be five times that


async def test_connections_that_proved_nothing_leave_nothing():
    """They come, ask, and go; what is kept of each is gone with it."""
    async with relay(max_unauthenticated_per_address=100_000) as service:
        port = port_of(service, "tcp")

        async def come_and_go(count):
            for _ in range(count):
                client = await Client().connect(port, tcp=True)
                await client.send(client.encode(Method.ALLOCATE))
                await client.receive()
                client.close()
            (listener,) = service._listeners._streams
            await until(lambda: not listener.connections)

        await come_and_go(20)
        tracemalloc.start()
        try:
            before = tracemalloc.take_snapshot().filter_traces((OURS,))
            await come_and_go(300)
            after = tracemalloc.take_snapshot().filter_traces((OURS,))
        finally:
            tracemalloc.stop()
        growth = sum(entry.size_diff for entry in after.compare_to(before, "filename"))
        assert growth < 300 * 50
        assert not service._listeners._stream_shared.strangers.open
