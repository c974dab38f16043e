"""The IP headers of relayed packets, by both planes (RFC 8656 §13, §14), and what routers say.

The kernel plane does what the RFC prefers: it passes a packet on, one hop older. A socket sees no
header, so user space sends a new packet with this machine's defaults, and nothing else.
"""

import struct
import time
from typing import NamedTuple

import pytest

from tests.patience import PATIENCE
from tests.turn.kernel import frames
from tests.turn.kernel.frames import Wire
from tests.turn.kernel.hosts import HostClient, relay
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Icmp
from turn.kernel.carrier import LOOK, WORTH

CHANNEL = b"\x40\x01"
TTL, TRAFFIC_CLASS = 7, 0xB9
"""Of packets as they are sent: expedited forwarding, ECT(1)."""
DEFAULT_TTL = 64
PAYLOAD = b"look at my header"
FAMILIES = [(False, False), (False, True), (True, False), (True, True)]


class Header(NamedTuple):
    """What a receiver sees of a packet's header."""

    ttl: int
    traffic_class: int
    may_be_fragmented: bool


def read(frame: bytes, payload: bytes) -> Header | None:
    """The header of the frame that carries a payload; None: another frame."""
    if payload not in frame:
        return None
    if frame[12:14] == b"\x08\x00":
        return Header(frame[22], frame[15], not frame[20] & 0x40)
    (word,) = struct.unpack_from("!I", frame, 14)
    return Header(frame[21], word >> 20 & 0xFF, True)


class Call:
    """A client with a channel to a peer, each of either family."""

    def __init__(self, three, *, client6: bool, peer6: bool) -> None:
        server = (three.server.ipv6 if client6 else three.server.ipv4, 3478)
        self.client = HostClient(three.client, server, ipv6=client6)
        self.peer = three.peer.udp(ipv6=peer6)
        peer = Address(*self.peer.getsockname()[:2])
        self.relayed = self.client.do(self._open(peer, 2 if peer6 else 1))
        self.client.sock.settimeout(PATIENCE)
        own = Address(*self.client.sock.getsockname()[:2])
        self.from_client = Wire(three.client.mac(), three.server.mac(), own, server)
        self.from_peer = Wire(three.peer.mac(), three.inner.mac(), peer, self.relayed)
        self.wires = {True: three.client.wire(), False: three.peer.wire()}

    async def _open(self, peer: Address, family: int) -> Address:
        wanted = (registry.REQUESTED_TRANSPORT, 17), (registry.REQUESTED_ADDRESS_FAMILY, family)
        reply = await self.client.request(Method.ALLOCATE, *wanted)
        number = (registry.CHANNEL_NUMBER, int.from_bytes(CHANNEL))
        await self.client.request(Method.CHANNEL_BIND, number, (registry.XOR_PEER_ADDRESS, peer))
        relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
        assert relayed is not None
        return relayed

    def warm(self) -> None:
        """Some packets each way, so that whoever carries the next knows where to send it."""
        for _ in range(WORTH):
            self.client.sock.send(CHANNEL + b"\x00\x04warm")
            assert self.peer.recv(100) == b"warm"
            self.peer.sendto(b"warm", tuple(self.relayed))
            assert self.client.sock.recv(100)[4:] == b"warm"
        time.sleep(2 * LOOK)

    def pass_on(self, *, from_client: bool) -> Header:
        """Send a packet with a header of its own; gives the one that it arrives with."""
        head = CHANNEL + len(PAYLOAD).to_bytes(2) if from_client else b""
        wire = self.from_client if from_client else self.from_peer
        how = {"ttl": TTL, "tos": TRAFFIC_CLASS, "hop_limit": TTL, "traffic_class": TRAFFIC_CLASS}
        frame = frames.ip(wire, frames.udp(wire, head + PAYLOAD), **how)
        self.wires[from_client].send(frame)
        other = self.wires[not from_client]
        while (found := read(other.recv(2000), PAYLOAD)) is None:
            pass
        return found

    def close(self) -> None:
        """Close every socket."""
        for sock in (self.client.sock, self.peer, *self.wires.values()):
            sock.close()


@pytest.fixture(params=["userspace", "kernel"])
def plane(request):
    return request.param


@pytest.mark.parametrize(("client6", "peer6"), FAMILIES)
def test_the_fields_are_those_of_the_rfc(three, plane, client6, peer6):
    """Hop limit, traffic class (DSCP and ECN), the DF bit."""
    with relay(three, plane):
        call = Call(three, client6=client6, peer6=peer6)
        try:
            call.warm()
            for from_client in (True, False):
                found = call.pass_on(from_client=from_client)
                by_kernel = plane == "kernel" and client6 is peer6
                assert found.ttl == (TTL - 1 if by_kernel else DEFAULT_TTL)
                assert found.traffic_class == (TRAFFIC_CLASS if by_kernel else 0)
                assert found.may_be_fragmented
        finally:
            call.close()


@pytest.mark.parametrize(("client6", "peer6"), FAMILIES)
def test_fragments_are_put_together_and_sent_as_this_machine_sends(three, plane, client6, peer6):
    with relay(three, plane):
        call = Call(three, client6=client6, peer6=peer6)
        try:
            long = bytes(range(256)) * 12
            call.client.sock.send(CHANNEL + len(long).to_bytes(2) + long)
            assert call.peer.recv(4000) == long
            call.peer.sendto(long, tuple(call.relayed))
            assert call.client.sock.recv(4000)[4:] == long
        finally:
            call.close()


@pytest.mark.parametrize("bound", [False, True], ids=["permission", "channel"])
def test_an_icmp_error_of_a_router_is_told_by_whom_it_concerns(three, bound):
    """RFC 8656 §11.5: the permission of the packet's destination counts, not the router's."""
    beyond = Address("10.92.3.9", 4000)
    for host, route in (
        (three.inner, ("10.92.3.0/24", "via", three.peer.ipv4)),
        (three.peer, ("unreachable", "10.92.3.0/24")),
    ):
        host.run("ip", "route", "replace", *route)
    three.peer.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0")
    with relay(three, "userspace"):
        call = Call(three, client6=False, peer6=False)
        try:
            number = (registry.CHANNEL_NUMBER, 0x4002)
            method = Method.CHANNEL_BIND if bound else Method.CREATE_PERMISSION
            call.client.sock.setblocking(False)
            extra = (number,) if bound else ()
            request = call.client.request(method, *extra, (registry.XOR_PEER_ADDRESS, beyond))
            call.client.do(request)
            call.client.sock.settimeout(PATIENCE)
            call.client.sock.send(send_indication(beyond))
            told = parse_untrusted(call.client.sock.recv(2000))
            assert (told.method, told.message_class) == (Method.DATA, MessageClass.INDICATION)
            assert told.get(registry.ICMP) == Icmp(3, 1, 0)  # host unreachable
            assert told.get(registry.XOR_PEER_ADDRESS) == beyond
        finally:
            call.close()


def test_an_icmp_error_for_a_peer_without_permission_is_not_told(three):
    """The router's own permission is none for what lies behind it."""
    with relay(three, "userspace") as running:
        call = Call(three, client6=False, peer6=False)
        try:
            # The relay's own socket sends where the client may not: as if permission had ended.
            service = running.service

            def send_anyway() -> None:
                (allocation,) = service._engine.table
                (relayed,) = allocation.relayed.values()
                relayed.relay.send(b"x", Address("10.92.3.9", 4000))

            running.call(send_anyway)
            call.client.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                call.client.sock.recv(2000)
        finally:
            call.close()


def send_indication(peer: Address) -> bytes:
    """A Send indication with a payload that nobody will read."""
    return build(
        Method.SEND,
        MessageClass.INDICATION,
        bytes(12),
        ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, b"x")),
        integrity=Integrity.NONE,
    )
