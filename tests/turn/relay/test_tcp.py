"""TCP allocations with real sockets on loopback (RFC 6062)."""

import asyncio
import resource
import socket
import time
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.patience import PATIENCE, until
from tests.turn.live import port_of, relay
from tests.turn.peers import TCP, listening, receive
from turn.bandwidth import SMALLEST, Budgets, ByteBudget
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.relay.tcp import TcpRelaySocket, Valve
from turn.stats import DropReason

MEGABYTE = 1 << 20


@asynccontextmanager
async def splice(connect, peer, **changes):
    """A relay, the client's control connection, its data connection, and the peer's end."""
    async with relay(tcp_allocations=True, **changes) as service:
        control = await connect(port_of(service, "tcp"), tcp=True)
        await control.request(Method.ALLOCATE, TCP)
        reply = await control.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, peer.address))
        number = reply.get(registry.CONNECTION_ID)
        reader, writer = await asyncio.wait_for(peer.streams.get(), PATIENCE)
        data = await connect(port_of(service, "tcp"), tcp=True)
        reply = await data.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))
        assert not reply.has(registry.ERROR_CODE)
        try:
            yield service, control, data.sock, reader, writer
        finally:
            writer.close()


async def test_bytes_pass_as_they_are_both_ways(connect):
    async with listening() as peer, splice(connect, peer) as (service, _, data, reader, writer):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(data, b"GET / HTTP/1.1\r\n")  # what no framer would take
        assert await asyncio.wait_for(reader.readexactly(16), PATIENCE) == b"GET / HTTP/1.1\r\n"
        writer.write(b"\xff" * 100)
        assert await receive(data, 100) == b"\xff" * 100
        assert (service.stats.sent_bytes, service.stats.received_bytes) == (16, 100)


async def test_what_the_peer_sent_before_the_claim_is_not_lost(connect):
    async with relay(tcp_allocations=True) as service, listening() as peer:
        control = await connect(port_of(service, "tcp"), tcp=True)
        await control.request(Method.ALLOCATE, TCP)
        peer_attribute = (registry.XOR_PEER_ADDRESS, peer.address)
        number = (await control.request(Method.CONNECT, peer_attribute)).get(registry.CONNECTION_ID)
        _, writer = await peer.streams.get()
        writer.write(b"early")
        data = await connect(port_of(service, "tcp"), tcp=True)
        data.nonce = control.nonce
        # The client's first bytes come in one segment with its claim.
        bind = data.encode(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))
        await data.send(bind + b"at once")
        received = await receive(data.sock, 20)
        assert received[:2] == b"\x01\x0b"
        if not received.endswith(b"early"):
            assert await receive(data.sock, 5) == b"early"
        writer.close()


@pytest.mark.parametrize("who", ["client", "peer", "control"])
async def test_the_end_of_one_side_is_the_end_of_the_other(connect, who):
    async with (
        listening() as peer,
        splice(connect, peer) as (service, control, data, reader, writer),
    ):
        {"client": data.close, "peer": writer.close, "control": control.sock.close}[who]()
        if who != "peer":
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        if who != "client":
            assert await receive(data, 1) == b""
        connections = service._engine._allocator.peers.connections
        await until(lambda: len(connections) == 0)


async def test_a_slow_reader_slows_the_other_side_and_loses_nothing(connect):
    async with listening() as peer, splice(connect, peer) as (_, _, data, _reader, writer):
        total = 64 * MEGABYTE  # more than the kernel buffers on the way
        sending = asyncio.create_task(write(writer, total))
        await asyncio.sleep(0.2)
        assert not sending.done(), "the relay took in what nobody reads"
        assert len(await receive(data, total)) == total
        await asyncio.wait_for(sending, PATIENCE)


async def write(writer, total):
    for _ in range(total // 65536):
        writer.write(bytes(65536))
        await writer.drain()


async def test_a_connection_counts_until_the_client_has_read_what_the_peer_left(connect):
    """Else a client that never reads keeps as many as it likes."""
    async with listening() as peer, splice(connect, peer) as (service, control, data, _, writer):
        connections = service._engine._allocator.peers.connections
        (stream,) = (each.stream for each in connections._by_number.values())
        while not stream._client.get_write_buffer_size():
            writer.write(bytes(65536))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.close()
        await until(stream._transport.is_closing)
        await asyncio.sleep(0.1)
        assert len(connections) == 1
        loop = asyncio.get_running_loop()
        while await asyncio.wait_for(loop.sock_recv(data, MEGABYTE), PATIENCE):
            pass
        await until(lambda: len(connections) == 0)
        assert not (await control.request(Method.REFRESH)).has(registry.ERROR_CODE)


async def test_the_byte_rate_holds(connect):
    async with (
        listening() as peer,
        splice(connect, peer, max_bytes_per_second=MEGABYTE) as (_, _, data, _, writer),
    ):
        began = time.monotonic()
        writer.write(bytes(4 * MEGABYTE))
        async with asyncio.timeout(PATIENCE):
            received = len(await receive(data, MEGABYTE))
        await asyncio.sleep(0.2)
        data.setblocking(False)
        more = len(receive_now(data))
        assert received + more < MEGABYTE * (1 + time.monotonic() - began) + 2 * 262144


def receive_now(sock):
    received = bytearray()
    with suppress(BlockingIOError):
        while part := sock.recv(65536):
            received += part
    return received


async def test_a_rate_below_one_read_slows_and_does_not_stop(connect):
    async with (
        listening() as peer,
        splice(connect, peer, max_bytes_per_second=200_000) as (_, _, data, _, writer),
    ):
        writer.write(bytes(300_000))
        assert len(await receive(data, 300_000)) == 300_000


@pytest.mark.parametrize(("rate", "pieces"), [(MEGABYTE, 4), (100_000, 40), (100, 40)])
async def test_what_was_read_is_paid_off_in_few_pieces(rate, pieces):
    """Each may be lost to another worker's at the same moment; and whatever is there is taken."""
    paid = []

    class Counted(ByteBudget):
        def spend(self, size):
            paid.append(size)
            super().spend(size)

    budgets = Budgets(Counted(rate, DropReason.BANDWIDTH, time.monotonic()))
    sock, other = socket.socketpair()
    with other:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        valve = Valve(transport)
        for _ in range(4):
            valve.passed(MEGABYTE // 4, budgets)
        assert rate - SMALLEST < sum(paid)
        assert len(paid) <= pieces
        transport.abort()
        await asyncio.sleep(0)


async def test_a_peer_that_is_not_there_gets_447(connect):
    async with listening() as peer:
        gone = peer.address
    async with relay(tcp_allocations=True) as service:
        control = await connect(port_of(service, "tcp"), tcp=True)
        await control.request(Method.ALLOCATE, TCP)
        reply = await control.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, gone))
        assert reply.get(registry.ERROR_CODE)[0] == 447


async def test_a_peer_connects_to_the_relayed_address(connect):
    async with relay(tcp_allocations=True) as service:
        control = await connect(port_of(service, "tcp"), tcp=True)
        reply = await control.request(Method.ALLOCATE, TCP)
        relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
        reader, writer = await asyncio.open_connection(*relayed)
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b"", (
            "no permission, no connection"
        )
        writer.close()
        peer = (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", 0))
        await control.request(Method.CREATE_PERMISSION, peer)
        reader, writer = await asyncio.open_connection(*relayed)
        attempt = parse_untrusted(await control.receive())
        assert attempt.method == Method.CONNECTION_ATTEMPT
        number = attempt.get(registry.CONNECTION_ID)
        data = await connect(port_of(service, "tcp"), tcp=True)
        await data.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))
        writer.write(b"hello")
        assert await receive(data.sock, 5) == b"hello"
        await data.send(b"and back")
        assert await asyncio.wait_for(reader.readexactly(8), PATIENCE) == b"and back"
        writer.close()


@pytest.fixture(name="descriptors")
def descriptors_fixture():
    """Takes all descriptors that this process may have; gives what lets go of them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as taken:

        def take():
            highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
            with suppress(OSError):
                while True:
                    taken.enter_context(socket.socket())

        def give_back():
            taken.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        yield take, give_back
        give_back()


async def test_without_descriptors_a_connect_fails_and_may_be_tried_again(connect, descriptors):
    take, give_back = descriptors
    async with listening() as peer, relay(tcp_allocations=True) as service:
        control = await connect(port_of(service, "tcp"), tcp=True)
        await control.request(Method.ALLOCATE, TCP)
        there = (registry.XOR_PEER_ADDRESS, peer.address)
        take()
        refused = await control.request(Method.CONNECT, there)
        assert refused.get(registry.ERROR_CODE)[0] == 447
        give_back()
        assert not (await control.request(Method.CONNECT, there)).has(registry.ERROR_CODE)
        _, writer = await asyncio.wait_for(peer.streams.get(), PATIENCE)
        writer.close()


async def test_without_descriptors_peers_wait_and_the_relay_does_not_spin(
    connect, descriptors, monkeypatch
):
    take, give_back = descriptors
    accept, calls = TcpRelaySocket._accept, []

    def counted(self):
        calls.append(1)
        accept(self)

    monkeypatch.setattr(TcpRelaySocket, "_accept", counted)
    async with relay(tcp_allocations=True) as service:
        control = await connect(port_of(service, "tcp"), tcp=True)
        relayed = (await control.request(Method.ALLOCATE, TCP)).get(registry.XOR_RELAYED_ADDRESS)
        await control.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, relayed))
        with socket.socket() as peer:
            peer.setblocking(False)
            take()
            await asyncio.get_running_loop().sock_connect(peer, relayed)
            await asyncio.sleep(0.3)
            assert 0 < len(calls) < 20
            give_back()
            attempt = parse_untrusted(await control.receive())
            assert attempt.method == Method.CONNECTION_ATTEMPT
