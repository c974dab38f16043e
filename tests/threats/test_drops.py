"""Every drop has a name: whatever ends at the relay is counted, once, under why it ended."""

import asyncio
import socket

import pytest

from tests.patience import until
from tests.turn.live import UDP, Client, port_of, relay
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.stats import DropReason

PEER = Address("127.0.0.9", 9)
PERMIT = (Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, PEER))
BIND = (
    Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4000), (registry.XOR_PEER_ADDRESS, PEER),
)  # fmt: skip


def indication(peer, payload=b"x"):
    return build(
        Method.SEND, MessageClass.INDICATION, bytes(12),
        ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, payload)), integrity=Integrity.NONE,
    )  # fmt: skip


CASES = [
    ("empty", {}, [], b""),
    ("not_ours", {}, [], b"\x80" * 20),
    ("malformed", {}, [], b"\x00\x01\x00\x04" + bytes(20)),
    ("malformed", {}, [], b"\x40\x00\x00\x09x"),
    ("unexpected", {}, [], b"\x01\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)),
    ("no_allocation", {}, [], b"\x40\x00\x00\x01x"),
    ("no_allocation", {}, [], indication(PEER)),
    ("no_channel", {}, [(Method.ALLOCATE, UDP)], b"\x40\x00\x00\x01x"),
    ("no_permission", {}, [(Method.ALLOCATE, UDP)], indication(PEER)),
    ("refused_peer", {"allow_peers": []}, [(Method.ALLOCATE, UDP), (
        Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, Address("127.0.0.1", 1)))],
     indication(Address("127.0.0.1", 6379))),
    ("bandwidth", {"max_bytes_per_second": 10}, [(Method.ALLOCATE, UDP), BIND],
     b"\x40\x00\x00\x0b12345678901"),
    ("bandwidth", {"max_bytes_per_second": 10}, [(Method.ALLOCATE, UDP), PERMIT],
     indication(PEER, b"x" * 11)),
    ("send_failed", {}, [(Method.ALLOCATE, UDP), (
        Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, Address("127.255.255.255", 9)))],
     indication(Address("127.255.255.255", 9))),  # broadcast, which no socket of ours may send
]  # fmt: skip
ELSEWHERE = {
    "reply_limit", "too_many_connections", "client_backlog", "user_bandwidth",
    "address_bandwidth", "tenant_bandwidth", "total_bandwidth", "no_proxy_header",
    "too_many_handshakes", "too_many_questions",
}  # fmt: skip
"""Shown by test_reflection, test_streams, test_questions, and the tests of the transports and of
bandwidth."""


@pytest.mark.parametrize(("reason", "settings", "steps", "packet"), CASES)
async def test_a_drop_is_counted_once_under_its_name(connect, reason, settings, steps, packet):
    async with relay(**settings) as service:
        client = await connect(port_of(service))
        for method, *attributes in steps:
            reply = await client.request(method, *attributes)
            assert reply.message_class == MessageClass.SUCCESS
        await client.send(packet)
        await client.request(Method.BINDING)  # the socket is read in order
        assert service.stats.drops == {reason: 1}
        assert service.stats.sent_packets == 0
        (dropped,) = [
            sample.value
            for metric in service.collector.collect()
            for sample in metric.samples
            if sample.labels.get("reason") == reason
        ]
        assert dropped == 1


def test_every_name_there_is_is_shown_here_or_elsewhere():
    assert {reason for reason, *_ in CASES} | ELSEWHERE == set(DropReason)


async def test_a_peer_without_a_permission_is_counted_too(connect):
    """What strangers send to a relayed address goes nowhere, and it shows."""
    async with relay() as service:
        client = await connect(port_of(service))
        relayed = await client.allocate()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.8", 0))
            for _ in range(5):
                stranger.sendto(b"evil", tuple(relayed))
            await until(lambda: service.stats.drops == {DropReason.NO_PERMISSION: 5})
        with pytest.raises(TimeoutError):
            await client.receive(patience=0.1)


async def test_nothing_that_is_relayed_reaches_a_service_of_ours_by_its_permission(connect):
    """Permissions are per address: the port is judged with every packet, whatever is allowed."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        ours.setblocking(False)
        own = Address(*ours.getsockname())
        async with relay() as service:
            service.policy.reserve_ports([own.port])
            client: Client = await connect(port_of(service))
            await client.allocate()
            permit = (Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, own))
            assert (await client.request(*permit)).message_class == MessageClass.SUCCESS
            for _ in range(3):
                await client.send(indication(own))
            await client.request(Method.BINDING)
            assert service.stats.drops == {DropReason.REFUSED_PEER: 3}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(ours, 100), 0.1)
