"""The UDP listener with real sockets: what is dropped, what is bounded, what gets through."""

import asyncio
import socket
import time
from contextlib import suppress

from tests.patience import PATIENCE
from tests.turn.live import UDP, port_of, relay, settings
from tests.turn.peers import udp_peer
from tests.turn.workers.live import send_indication
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.common import alone
from turn.server import TurnService
from turn.stats import DropReason
from turn.transport.listeners import Bind
from turn.transport.queues import queue_beside


async def test_a_client_and_a_peer_exchange_packets_through_a_channel(connect):
    loop = asyncio.get_running_loop()
    with udp_peer() as peer:
        async with relay() as service:
            client = await connect(port_of(service))
            relayed = await client.allocate()
            await client.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4000),
                (registry.XOR_PEER_ADDRESS, Address(*peer.getsockname())),
            )
            await client.send(b"\x40\x00\x00\x04ping")
            data, source = await asyncio.wait_for(loop.sock_recvfrom(peer, 100), PATIENCE)
            assert (data, source) == (b"ping", tuple(relayed))
            await loop.sock_sendto(peer, b"pong", source)
            assert await client.receive() == b"\x40\x00\x00\x04pong"


async def test_indications_carry_any_length_and_are_padded(connect):
    loop = asyncio.get_running_loop()
    with udp_peer() as peer:
        async with relay() as service:
            client = await connect(port_of(service))
            relayed = await client.allocate()
            address = Address(*peer.getsockname())
            await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, address))
            for size in (0, 1, 2, 3, 4, 5, 1400, 9000):
                payload = bytes(range(256)) * 36
                await loop.sock_sendto(peer, payload[:size], tuple(relayed))
                message = parse_untrusted(await client.receive())
                assert message.message_class == MessageClass.INDICATION
                assert message.get(registry.XOR_PEER_ADDRESS) == address
                assert message.get(registry.DATA) == payload[:size]


def unsorted(sock: socket.socket) -> socket.socket:
    """A second queue that the kernel has not been told of: it deals the clients between the two."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return queue_beside(sock)


async def test_either_queue_serves_whatever_comes_before_the_kernel_sorts(connect):
    """As for a moment at each start, and of workers until the last one is there."""
    service = TurnService(settings(), common=alone()._replace(bind=Bind(requests=unsorted)))
    await service.start()
    with udp_peer() as peer:
        address = Address(*peer.getsockname())
        for _ in range(16):  # one in 32,768 times all of them come in by the same
            client = await connect(port_of(service))
            relayed = await client.allocate()
            channel = (registry.CHANNEL_NUMBER, 0x4000), (registry.XOR_PEER_ADDRESS, address)
            await client.request(Method.CHANNEL_BIND, *channel)
            for packet in (b"\x40\x00\x00\x04ping", send_indication(address, b"ping")):
                await client.send(packet)
                receiving = asyncio.get_running_loop().sock_recvfrom(peer, 100)
                assert await asyncio.wait_for(receiving, PATIENCE) == (b"ping", tuple(relayed))
    await service.stop()


async def test_what_is_not_ours_is_counted_and_gets_no_answer(connect):
    async with relay() as service:
        client = await connect(port_of(service))
        for data, reason in (
            (b"", DropReason.EMPTY),
            (b"\x16\xfe\xfd" + bytes(20), DropReason.NOT_OURS),
            (b"\x80" * 12, DropReason.NOT_OURS),
            (b"\x00\x01", DropReason.MALFORMED),
            (b"\x40\x00\x00\x09x", DropReason.MALFORMED),
            (b"\x40\x00\x00\x01x", DropReason.NO_ALLOCATION),
            (b"\x00\x16" + bytes(18), DropReason.MALFORMED),
        ):
            before = service.stats.drops[reason]
            await client.send(data)
            await client.request(Method.BINDING)  # the socket is read in order
            assert service.stats.drops[reason] == before + 1, data


async def test_a_source_that_proves_nothing_draws_a_bounded_number_of_replies(connect):
    async with relay(max_unproved_replies_per_second=20, max_bindings_per_second=50) as service:
        client = await connect(port_of(service))
        replies_in_all = 0
        for method, most in ((Method.BINDING, 50), (Method.ALLOCATE, 20)):
            began, replies = time.monotonic(), 0
            for _ in range(200):
                await client.send(client.encode(method))
            try:
                while True:
                    await client.receive(patience=0.2)
                    replies += 1
            except TimeoutError:
                pass
            # what the bucket holds, and what it gained while this ran
            assert most <= replies <= most * (1 + time.monotonic() - began) + 1
            replies_in_all += replies
        assert service.stats.drops[DropReason.REPLY_LIMIT] == 400 - replies_in_all > 0


async def test_a_transaction_that_is_known_draws_no_more(connect):
    """Else whoever has been at an address sends replies there for 40 s, from anywhere."""
    async with relay(max_unproved_replies_per_second=20) as service:
        client = await connect(port_of(service))
        await client.request(Method.BINDING)
        await client.allocate()
        request = client.encode(Method.REFRESH)
        await client.send(request)
        reply = await client.receive()
        for _ in range(3):
            await client.send(request)
            assert await client.receive() == reply
        began, replies = time.monotonic(), 0
        for _ in range(200):
            await client.send(request[:2] + b"\0\0" + request[4:20])
        with suppress(TimeoutError):
            while True:
                await client.receive(patience=0.2)
                replies += 1
        assert replies <= 20 * (1 + time.monotonic() - began) + 1


async def test_malformed_messages_draw_no_reply_at_all(connect):
    async with relay() as service:
        client = await connect(port_of(service))
        good = client.encode(Method.BINDING)
        for size in range(1, len(good)):
            await client.send(good[:size])
        try:
            await client.receive(patience=0.2)
        except TimeoutError:
            return
        raise AssertionError("a reply to a malformed message")


async def test_an_unauthenticated_reply_is_short(connect):
    """A forged source must not gain: the answer to 20 bytes of Allocate stays near 100."""
    async with relay() as service:
        client = await connect(port_of(service))
        await client.send(client.encode(Method.ALLOCATE))
        assert len(await client.receive()) <= 120


async def test_an_icmp_error_of_a_dead_peer_harms_nobody(connect):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        dead = Address(*gone.getsockname())
    async with relay() as service:
        client = await connect(port_of(service))
        await client.request(Method.ALLOCATE, UDP)
        await client.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, 0x4000),
            (registry.XOR_PEER_ADDRESS, dead),
        )
        for _ in range(5):
            await client.send(b"\x40\x00\x00\x01x")
        reply = await client.request(Method.REFRESH)
        assert reply.message_class == MessageClass.SUCCESS


async def test_ports_come_back_after_allocating_all_and_freeing_all(connect):
    # Below the ports that the kernel gives to others, and where no other test relays from.
    own = {"relay_ports": "20100-20119", "relay_addresses": ["127.0.0.31"]}
    async with relay(**own) as service:
        port = port_of(service)
        for _ in range(5):
            clients = [await connect(port) for _ in range(21)]
            codes = []
            for client in clients:
                reply = await client.request(Method.ALLOCATE, UDP)
                codes.append((reply.get(registry.ERROR_CODE) or (0, ""))[0])
            assert codes == [0] * 20 + [508]
            for client in clients[:20]:
                await client.request(Method.REFRESH, (registry.LIFETIME, 0))
            clients[20].close()
            assert service.ports_in_use == 0
