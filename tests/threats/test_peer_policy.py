"""No packet reaches a refused peer: doors x encodings x transports, with sinks that count.

The sinks listen on loopback, which the policy refuses by default; a relay that let anything
through would be seen here, whichever door it used.
"""

import asyncio
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.turn.live import UDP, Client, port_of, relay
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import Message, build
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family


class Sink:
    """A UDP socket that counts what reaches it."""

    def __init__(self, family: socket.AddressFamily, host: str) -> None:
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.setblocking(False)

    @property
    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port

    def count(self) -> int:
        """What has arrived."""
        count = 0
        while True:
            try:
                self.sock.recv(65536)
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def sinks() -> Iterator[list[Sink]]:
    """One on every address of loopback that is refused."""
    found = [Sink(socket.AF_INET, "127.0.0.1"), Sink(socket.AF_INET6, "::1")]
    yield found
    for sink in found:
        sink.sock.close()


def encodings(port: int) -> list[Address]:
    """127.0.0.1 (and what leads there) in every form that an address attribute can have."""
    number = int(ip_address("127.0.0.1"))
    ipv6 = [
        1,
        number,
        0xFFFF << 32 | number,
        0x64FF9B << 96 | number,
        0x64FF9B0001 << 80 | number,
        0x2002 << 112 | number << 80,
        0x2001 << 112 | (number ^ 0xFFFFFFFF),
        0x2606_4700 << 96 | 0x00005EFE << 32 | number,
        0xFE80 << 112 | 1,
        0,
    ]
    hosts = ["127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "169.254.169.254"]
    hosts += [str(ip_address(value.to_bytes(16))) for value in ipv6]
    return [Address(host, port) for host in hosts]


def code_of(reply: Message) -> int:
    error = reply.get(registry.ERROR_CODE)
    return error[0] if error else 0


async def try_every_door(client: Client, peer: Address, number: int) -> list[int]:
    """Ask for the peer at each door, and send there whatever the answer was."""
    permission = await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, peer))
    channel = await client.request(
        Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, number), (registry.XOR_PEER_ADDRESS, peer)
    )
    await client.send(
        build(
            Method.SEND,
            MessageClass.INDICATION,
            bytes(12),
            ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, b"evil")),
            integrity=Integrity.NONE,
        )
    )
    await client.send(number.to_bytes(2) + b"\x00\x04evil")
    return [code_of(permission), code_of(channel)]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("family", list(Family))
async def test_no_packet_reaches_a_refused_peer(connect, sinks, tcp, family):
    async with relay(
        listen=["127.0.0.1:0", "[::1]:0"], allow_peers=[], relay_addresses=["127.0.0.1", "::1"]
    ) as service:
        client = await connect(port_of(service, "tcp" if tcp else "udp"), tcp=tcp)
        await client.request(Method.ALLOCATE, UDP, (registry.REQUESTED_ADDRESS_FAMILY, family))
        number = 0x4000
        for sink in sinks:
            for peer in encodings(sink.port):
                number += 1
                codes = await try_every_door(client, peer, number)
                # An own address may be somebody's relay, so its permission may be had; no
                # channel, and no packet but to a live relay port.
                assert codes[1] in {403, 443}, peer
                assert codes[0] in {403, 443} or peer.host in {"127.0.0.1", "::1"}, peer
        await client.request(Method.REFRESH)  # everything before it has been handled
        await asyncio.sleep(0.1)
        assert [sink.count() for sink in sinks] == [0, 0]
        assert service.stats.sent_packets == 0


async def test_two_relayed_clients_meet_where_nothing_else_on_the_machine_can_be_met(connect):
    async with relay(allow_peers=[]) as service:
        port = port_of(service)
        one, two = await connect(port), await connect(port)
        addresses = [await client.allocate() for client in (one, two)]
        for client, peer in ((one, addresses[1]), (two, addresses[0])):
            reply = await client.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4000),
                (registry.XOR_PEER_ADDRESS, peer),
            )
            assert code_of(reply) == 0
        await one.send(b"\x40\x00\x00\x05hello")
        assert await two.receive() == b"\x40\x00\x00\x05hello"
        for own_port in (port, 6379, 9641, 22):
            reply = await one.request(
                Method.CHANNEL_BIND,
                (registry.CHANNEL_NUMBER, 0x4001),
                (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", own_port)),
            )
            assert code_of(reply) == 403


async def test_our_own_ports_are_refused_even_where_the_operator_opened_the_machine(connect):
    async with relay(allow_peers=["127.0.0.0/8"]) as service:
        port = port_of(service)
        client = await connect(port)
        await client.allocate()
        reply = await client.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, 0x4000),
            (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", port)),
        )
        assert code_of(reply) == 403
