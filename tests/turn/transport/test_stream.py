"""TCP with real sockets: framing, strangers, slow readers, and the end of a connection."""

import asyncio
import socket
import struct

import pytest

from tests.patience import PATIENCE, until
from tests.turn.live import UDP, port_of, relay
from tests.turn.peers import udp_peer
from turn.codec import registry
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.stats import DropReason
from turn.transport.bind import bind_tcp
from turn.transport.stream import READ_BYTES, READ_OF_STRANGERS


async def send_for_ever(client, data):
    """Send, and never read."""
    while True:
        await client.send(data)


async def trickle(client):
    """Send a request a byte at a time, and never its last one."""
    for byte in client.encode(Method.BINDING)[:-1]:
        await client.send(bytes((byte,)))
        await asyncio.sleep(0.05)


async def test_requests_arrive_whatever_the_segments(connect):
    async with relay() as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        message = client.encode(Method.BINDING)
        for byte in message:
            await client.send(bytes((byte,)))
        await client.send(message * 3)
        for _ in range(4):
            assert (await client.receive())[:2] == b"\x01\x01"


async def test_channel_data_is_padded_both_ways(connect):
    loop = asyncio.get_running_loop()
    with udp_peer() as peer:
        async with relay() as service:
            client = await connect(port_of(service, "tcp"), tcp=True)
            await client.request(Method.ALLOCATE, UDP)
            await client.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4000),
                (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname())),
            )
            for size in range(9):
                payload = b"x" * size
                padding = bytes(-size % 4)
                await client.send(b"\x40\x00" + size.to_bytes(2) + payload + padding)
                data, source = await asyncio.wait_for(loop.sock_recvfrom(peer, 100), PATIENCE)
                assert data == payload
                await loop.sock_sendto(peer, payload, source)
                assert await client.receive() == b"\x40\x00" + size.to_bytes(2) + payload


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(100), b"\x80" * 40,
     b"\x00\x01\x00\x03" + bytes(40), b"\x00\x01\x00\x04" + bytes(20), b"\x05" * 4,
     b"SSH-2.0-x\r\n"],
)  # fmt: skip
async def test_anything_else_closes_the_connection_without_a_word(connect, garbage):
    async with relay() as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        await client.send(garbage)
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.receive()
        assert service.stats.drops[DropReason.MALFORMED] == 1


def test_small_packets_do_not_wait_for_each_other():
    with bind_tcp("127.0.0.1", 0) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_connection_that_says_nothing_is_closed(connect):
    async with relay(first_request_timeout=0.2) as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        with pytest.raises((EOFError, ConnectionResetError)):
            await client.receive()


async def test_half_a_request_does_not_buy_time(connect):
    async with relay(first_request_timeout=0.3) as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        with pytest.raises((EOFError, ConnectionError)):
            await trickle(client)


async def test_an_allocation_ends_with_its_connection(connect):
    async with relay() as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        await client.request(Method.ALLOCATE, UDP)
        assert service.ports_in_use == 1
        client.close()
        await until(lambda: service.ports_in_use == 0)
        assert service.stats.allocations_closed["disconnected"] == 1


async def test_a_reply_that_comes_too_late_is_not_brought_after(connect):
    """RFC 8489 §6.2.2: no connection is ever opened towards the client."""
    async with relay(tcp_allocations=True) as service:
        # An address where nobody else is given its port once it is free.
        client = await connect(port_of(service, "tcp"), tcp=True, source="127.0.0.77")
        await client.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
        own = client.sock.getsockname()
        with socket.socket() as peer, socket.socket() as back:
            peer.bind(("127.0.0.1", 0))  # does not listen: Connect fails, and says so later
            there = (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname()))
            await client.send(client.encode(Method.CONNECT, there))
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            back.bind(own)
            back.listen()
            back.settimeout(0)
            await until(lambda: service.ports_in_use == 0)
            await asyncio.sleep(0.1)
            with pytest.raises(BlockingIOError):
                back.accept()


async def test_strangers_of_one_address_are_bounded_and_proof_frees_a_place(connect):
    async with relay(max_unauthenticated_per_address=2) as service:
        port = port_of(service, "tcp")
        one, _, three = [await connect(port, tcp=True) for _ in range(3)]
        with pytest.raises((EOFError, ConnectionResetError)):
            await three.receive()
        reply = await one.request(Method.ALLOCATE, UDP)
        assert reply.message_class == MessageClass.SUCCESS
        four = await connect(port, tcp=True)
        assert (await four.request(Method.BINDING)).message_class == MessageClass.SUCCESS


async def test_a_client_that_does_not_read_loses_packets_and_nothing_else(connect):
    loop = asyncio.get_running_loop()
    with udp_peer() as peer:
        async with relay() as service:
            client = await connect(port_of(service, "tcp"), tcp=True)
            relayed = await client.allocate()
            await client.request(
                Method.CREATE_PERMISSION,
                (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname())),
            )
            for _ in range(2000):
                await loop.sock_sendto(peer, bytes(8192), tuple(relayed))
                await asyncio.sleep(0)
                if service.stats.drops[DropReason.CLIENT_BACKLOG]:
                    break
            assert service.stats.drops[DropReason.CLIENT_BACKLOG]
            assert service.ports_in_use == 1


async def test_a_stranger_that_reads_no_replies_is_cut_off(connect):
    """Else each connection that anybody opens keeps a megabyte of what is never read.

    A small window, not a small buffer: where a buffer has no room for what its window has let
    in, the kernel closes the window, and takes no acknowledgment from beyond it any more. So both
    directions stand still, and nobody ever has too many replies.
    """
    async with relay() as service:
        client = await connect(port_of(service, "tcp"), tcp=True, window=4096)
        request = client.encode(Method.ALLOCATE) * 100
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(2 * PATIENCE):
                await send_for_ever(client, request)
        assert service.stats.drops[DropReason.CLIENT_BACKLOG]


async def test_strangers_are_read_a_little_at_a_time(connect):
    """64 of them, who send as fast as they can, made everybody else wait for seconds."""
    async with relay() as service:
        client = await connect(port_of(service, "tcp"), tcp=True)
        for _ in range(2):
            await client.request(Method.BINDING)
            (connection,) = service._listeners._streams[0].connections
            assert len(connection.get_buffer(-1)) == READ_OF_STRANGERS
            await client.allocate()
            assert len(connection.get_buffer(-1)) == READ_BYTES
            await client.request(Method.REFRESH, (registry.LIFETIME, 0))


async def test_who_has_let_go_of_an_allocation_is_a_stranger_again(connect):
    """Else one user keeps any number of connections open, and pays for none."""
    async with relay(max_unauthenticated_per_address=2) as service:
        clients = []
        for _ in range(3):
            clients.append(await connect(port_of(service, "tcp"), tcp=True))
            await clients[-1].allocate()
        for client in clients:
            released = await client.request(Method.REFRESH, (registry.LIFETIME, 0))
            assert released.message_class == MessageClass.SUCCESS
        with pytest.raises((EOFError, ConnectionResetError)):
            await clients[2].receive()
        assert service.stats.drops[DropReason.TOO_MANY_CONNECTIONS] == 1
        for client in clients[:2]:
            await client.allocate()
        assert service._listeners._streams[0].shared.strangers.open == 0


async def test_a_connection_whose_allocation_expires_is_a_strangers_too(connect):
    async with relay(max_unauthenticated_per_address=1) as service:
        clients = [await connect(port_of(service, "tcp"), tcp=True) for _ in range(1)]
        await clients[0].allocate()
        clients.append(await connect(port_of(service, "tcp"), tcp=True))
        await clients[1].allocate()
        service._engine.close_all()
        service._listeners.sweep()
        assert service._listeners._streams[0].shared.strangers.open == 1
        await until(lambda: len(service._listeners._streams[0].connections) == 1)
