"""ICMP errors and the DF bit, with real sockets on loopback."""

import asyncio
import socket

import pytest

from tests.patience import PATIENCE
from tests.turn.live import UDP, port_of, relay
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family, Icmp
from turn.relay.icmp import forbid_fragments, next_error, prepare

LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}


def closed_port(family):
    with socket.socket(socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET,
                       socket.SOCK_DGRAM) as probe:  # fmt: skip
        probe.bind((LOOPBACK[family], 0))
        return probe.getsockname()[1]


def indication(peer, payload, *flags):
    return build(
        Method.SEND,
        MessageClass.INDICATION,
        bytes(12),
        ((registry.XOR_PEER_ADDRESS, peer), *flags, (registry.DATA, payload)),
        integrity=Integrity.NONE,
    )


@pytest.fixture(params=[Family.IPV4, Family.IPV6])
def family(request):
    return request.param


async def allocated(connect, service, family):
    client = await connect(port_of(service))
    wanted = (registry.REQUESTED_ADDRESS_FAMILY, family)
    await client.request(Method.ALLOCATE, UDP, wanted)
    return client


LISTEN = {"listen": ["127.0.0.1:0", "[::1]:0"]}


async def test_a_client_hears_that_a_peer_is_not_there(connect, family):
    async with relay(**LISTEN) as service:
        client = await allocated(connect, service, family)
        peer = Address(LOOPBACK[family], closed_port(family))
        await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, peer))
        await client.send(indication(peer, b"hello"))
        heard = parse_untrusted(await client.receive())
        assert (heard.method, heard.message_class) == (Method.DATA, MessageClass.INDICATION)
        assert heard.get(registry.XOR_PEER_ADDRESS) == peer
        # Port unreachable (RFC 792, RFC 4443).
        expected = Icmp(3, 3, 0) if family is Family.IPV4 else Icmp(1, 4, 0)
        assert heard.get(registry.ICMP) == expected
        assert not heard.has(registry.DATA)


async def test_an_error_of_one_peer_costs_another_no_packet(connect, family):
    async with relay(**LISTEN) as service:
        client = await allocated(connect, service, family)
        kind = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
        with socket.socket(kind, socket.SOCK_DGRAM) as there:
            there.bind((LOOPBACK[family], 0))
            there.setblocking(False)
            good = Address(*there.getsockname()[:2])
            gone = Address(LOOPBACK[family], closed_port(family))
            await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, good))
            for number in range(20):
                await client.send(indication(gone, b"nobody"))
                await client.send(indication(good, bytes([number])))
                received = await asyncio.wait_for(
                    asyncio.get_running_loop().sock_recv(there, 100), PATIENCE
                )
                assert received == bytes([number])
        assert not service.stats.drops


async def test_dont_fragment_sets_the_bit_for_its_packet_alone(connect, need_root):
    need_root("to see the header of an IP packet")
    async with relay() as service:
        client = await allocated(connect, service, Family.IPV4)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as wire,
        ):
            # At an address of its own: what all others send on loopback would fill its buffer.
            wire.bind(("127.0.0.78", 0))
            there.bind(("127.0.0.78", 0))
            wire.setblocking(False)
            peer = Address(*there.getsockname())
            await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, peer))
            seen = []
            for flags in ((), ((registry.DONT_FRAGMENT, True),), ()):
                await client.send(indication(peer, b"look at my header", *flags))
                packet = b""
                while packet[22:24] != peer.port.to_bytes(2):
                    packet = await asyncio.wait_for(
                        asyncio.get_running_loop().sock_recv(wire, 2000), PATIENCE
                    )
                seen.append(bool(packet[6] & 0x40))
            assert seen == [False, True, False]


@pytest.mark.parametrize("family", Family)
def test_a_packet_that_may_not_be_fragmented_is_refused_where_it_is_too_long(family):
    is_ipv6 = family is Family.IPV6
    host, kind = ("::1", socket.AF_INET6) if is_ipv6 else ("127.0.0.1", socket.AF_INET)
    with (
        socket.socket(kind, socket.SOCK_DGRAM) as sock,
        socket.socket(kind, socket.SOCK_DGRAM) as to,
    ):
        prepare(sock, family)
        to.bind((host, 0))
        # Loopback takes 65,536 bytes; with the headers this is more.
        longest = bytes(65507)
        forbid_fragments(sock, True)
        with pytest.raises(OSError, match="too long"):
            sock.sendto(longest + bytes(20), to.getsockname())
        forbid_fragments(sock, False)
        sock.sendto(longest, to.getsockname())


def test_the_queue_of_errors_ends():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        prepare(sock, Family.IPV4)
        with pytest.raises(BlockingIOError):
            next_error(sock)
