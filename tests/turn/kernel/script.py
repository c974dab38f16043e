"""A script of packets, valid, odd and hostile, and a stage to play it on with either plane."""

import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.patience import PATIENCE
from tests.turn.kernel import frames
from tests.turn.kernel.frames import Wire
from tests.turn.kernel.hosts import HostClient, Network, Relay
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.values import Address
from turn.kernel.carrier import WORTH

CHANNEL = 0x4001
MARK = b"the mark"
UDP_SEGMENT = 103
LARGEST = 1500
PEER_PORT = 40000


class Stage:
    """A client with a channel to a peer, and sockets that send them anything."""

    def __init__(
        self,
        network: Network,
        relay: Relay,
        *,
        ipv6: bool = False,
        port: int = PEER_PORT,
        user: tuple[str, str] = ("alice", "pw"),
    ) -> None:
        self.network, self.relay, self.is_ipv6 = network, relay, ipv6
        self.header = 40 if ipv6 else 20
        server = (network.server.ipv6 if ipv6 else network.server.ipv4, 3478)
        self.client = HostClient(network.client, server, ipv6=ipv6, user=user)
        self.peer = network.peer.udp(port, ipv6=ipv6)
        self.peer_address = Address(*self.peer.getsockname()[:2])
        self.relayed = self.client.do(self._open())
        self.client.sock.settimeout(PATIENCE)
        self._client_wire, self._peer_wire = network.client.wire(), network.peer.wire()
        own = Address(*self.client.sock.getsockname()[:2])
        self.from_client = Wire(network.client.mac(), network.server.mac(), own, server)
        self.from_peer = Wire(
            network.peer.mac(), network.inner.mac(), self.peer_address, self.relayed
        )

    async def _open(self) -> Address:
        family = (registry.REQUESTED_ADDRESS_FAMILY, 2 if self.is_ipv6 else 1)
        reply = await self.client.request(
            registry.Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 17), family
        )
        assert reply.get(registry.ERROR_CODE) is None, reply.get(registry.ERROR_CODE)
        relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
        assert relayed is not None
        await self.admit()
        return relayed

    async def admit(self) -> None:
        """Have packets of the peer let through."""
        await self.bind(CHANNEL, self.peer_address)

    async def bind(self, channel: int, peer: Address) -> None:
        """Bind a channel, or refresh it."""
        reply = await self.client.request(
            registry.Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, channel),
            (registry.XOR_PEER_ADDRESS, peer),
        )
        assert reply.get(registry.ERROR_CODE) is None, reply.get(registry.ERROR_CODE)

    def close(self) -> None:
        """Close every socket."""
        for sock in (self.client.sock, self.peer, self._client_wire, self._peer_wire):
            sock.close()

    # What goes out -------------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Send a payload from the client, as an honest one does."""
        self.client.sock.send(self.wrapped(payload))

    def wrapped(self, payload: bytes) -> bytes:
        """What carries a payload to the peer."""
        return channel_data(payload)

    def mark(self) -> bytes:
        """What carries the mark by way of user space."""
        return channel_data(MARK) + bytes(4)

    def warm_up(self) -> None:
        """Have the kernel carry from here on: some packets make the route worth it, and user
        space finds out the hardware addresses."""
        for _ in range(WORTH // 2):
            self.send(b"first")
            self.answer(b"first")
        self.collect()
        self.relay.settle()

    def send_raw(self, body: bytes, udp: dict[str, Any] | None = None, **ip: int) -> None:
        """Send a frame from the client with these bytes behind the UDP header."""
        wire = self.from_client
        self._client_wire.send(frames.ip(wire, frames.udp(wire, body, **(udp or {})), **ip))

    def send_frames(self, *whole: bytes) -> None:
        """Send whole frames from the client."""
        for frame in whole:
            self._client_wire.send(frame)

    def answer(self, payload: bytes) -> None:
        """Send a packet from the peer, as an honest one does."""
        self.peer.sendto(payload, self.relayed)

    def answer_raw(self, body: bytes, udp: dict[str, Any] | None = None, **ip: int) -> None:
        """Send a frame from the peer with these bytes behind the UDP header."""
        wire = self.from_peer
        self._peer_wire.send(frames.ip(wire, frames.udp(wire, body, **(udp or {})), **ip))

    def answer_frames(self, *whole: bytes) -> None:
        """Send whole frames from the peer."""
        for frame in whole:
            self._peer_wire.send(frame)

    # What comes in -------------------------------------------------------------------------

    def collect(self) -> tuple[list[Any], list[Any]]:
        """What reached the peer and the client since the last time: payloads and senders.

        The marks travel by user space in both planes (not plain; an empty packet), behind
        everything that went there; what the kernel carries is there before ``send`` returns.
        """
        self.client.sock.send(self.mark())
        self.answer(b"")
        at_peer, at_client = [], []
        while (got := self.peer.recvfrom(65536))[0] != MARK:
            at_peer.append((got[0], got[1][:2] == self.relayed))
        while not self.is_empty(data := self.client.sock.recv(65536)):
            at_client.append(told(data))
        return at_peer, at_client

    @staticmethod
    def payload_of(data: bytes) -> bytes:
        """What a message to the client carries."""
        return data[4:] if data[0] >> 6 else parse_untrusted(data).get(registry.DATA) or b""

    def is_empty(self, data: bytes) -> bool:
        """Whether a message to the client says that the peer has sent an empty packet."""
        return data == channel_data(b"")

    def carried(self) -> int:
        """Packets that the kernel has carried, both ways."""
        total = self.relay.call(self.relay.service._plane.carried)
        return int(total.sent_packets + total.received_packets)

    def by_xdp(self) -> int:
        """How many of those never had a socket buffer."""
        plane: Any = self.relay.service._plane

        def count() -> int:
            offloads = plane._offloads.values()
            return sum(one.table.frames(place) for one in offloads for place in one.places)

        return int(self.relay.call(count))


def told(data: bytes) -> object:
    """A message to the client; of a Data indication all but its id, which is random."""
    if data[0] >> 6:
        return data
    message = parse_untrusted(data)
    payload = message.get(registry.DATA) or b""
    behind = data[len(data) - (-len(payload) & 3) :]
    return data[:8], message.get(registry.XOR_PEER_ADDRESS), payload, behind


def channel_data(payload: bytes, channel: int = CHANNEL, length: int | None = None) -> bytes:
    """A ChannelData message; ``length`` in place of the right one."""
    return struct.pack("!HH", channel, len(payload) if length is None else length) + payload


def body(size: int) -> bytes:
    """A payload of that size which no two places of look alike."""
    return b"".join(
        struct.pack("!H", at * 2654435761 >> 7 & 0xFFFF) for at in range(size // 2 + 1)
    )[:size]


class Case(NamedTuple):
    """Some packets, and how many of them the kernel carries."""

    name: str
    play: Callable[[Any], None]
    carried: int = 0


def sends(*sizes: int) -> Callable[[Stage], None]:
    """Payloads of these sizes to the peer."""

    def play(stage: Stage) -> None:
        for size in sizes:
            stage.send(body(size))

    return play


def answers(*sizes: int) -> Callable[[Stage], None]:
    """Payloads of these sizes to the client."""

    def play(stage: Stage) -> None:
        for size in sizes:
            stage.answer(body(size))

    return play


def both(name: str, size: int) -> list[Case]:
    """A packet of this payload size each way."""
    return [
        Case(f"{name} {size} to the peer", sends(size), 1),
        Case(f"{name} {size} to the client", answers(size), 1),
    ]


def of_both_families(header: int, *, segmentation: bool) -> list[Case]:
    """What is played by IPv4 and by IPv6.

    :param header: the length of the IP header.
    :param segmentation: several packets travel as one until somebody has to take them apart.
    """
    room = LARGEST - header - 8
    good = channel_data(body(100))
    return [
        *(case for size in (4, 5, 6, 7, 8, 63, 172, 1200) for case in both("plain", size)),
        Case("empty ChannelData", lambda s: s.send(b"")),
        *(Case(f"{size} bytes to the peer", sends(size), 1) for size in (1, 2, 3)),
        *(Case(f"{size} bytes to the client", answers(size)) for size in (1, 2, 3)),
        Case("the longest to the peer", lambda s: s.send(body(room - 4)), 1),
        Case("longer than a packet", lambda s: s.send(body(room - 3))),
        Case("the longest to the client", lambda s: s.answer(body(room - 4)), 1),
        *(
            Case(f"no room for the channel: {size}", answers(size))
            for size in range(room - 3, room + 1)
        ),
        Case("near the longest to the peer", sends(*range(room - 36, room - 3)), 33),
        Case("near the longest to the client", answers(*range(room - 36, room - 3)), 33),
        Case("many", sends(*range(100, 150)), 50),
        Case("padding", lambda s: s.send_raw(channel_data(b"abc") + b"\0")),
        Case("a channel that is not bound", lambda s: s.send_raw(channel_data(b"abcd", 0x4002))),
        Case("no channel number", lambda s: s.send_raw(channel_data(b"abcd", 0x8001))),
        Case("length beyond the packet", lambda s: s.send_raw(channel_data(b"abcd", length=5))),
        Case("length short of it", lambda s: s.send_raw(channel_data(b"abcd", length=3))),
        Case("nothing but two bytes", lambda s: s.send_raw(b"\x40\x01")),
        Case("no payload at all", lambda s: s.send_raw(b"")),
        Case("a frame from the wire", lambda s: s.send_raw(good), 1),
        Case("a frame from the peer's wire", lambda s: s.answer_raw(body(100)), 1),
        Case("bytes behind the IP packet", trailing),
        Case("not to our hardware address", other_mac),
        Case("a VLAN that is not ours", lambda s: s.send_frames(frames.tagged(framed(s, good), 7))),
        Case("from another port", lambda s: from_elsewhere(s, port=9)),
        Case("from another address", lambda s: from_elsewhere(s, last="77")),
        Case("from another peer's port", another_peer),
        Case("a request of STUN's kind from the peer", lambda s: s.answer(b"\0\1" + body(30)), 1),
        *(Case(f"in pieces of {size} to the peer", in_pieces(size), 1) for size in (1, 4, 8, 500)),
        *(
            Case(f"in pieces of {size} to the client", from_the_peer_in_pieces(size), 1)
            for size in (1, 4, 500)
        ),
        Case("fragments", fragments),
        Case("fragments from the peer", fragments_from_the_peer),
        Case("five packets in one", super_packets, 0 if segmentation else 5),
    ]


IPV4_ONLY = [
    Case("IP options", lambda s: s.send_raw(channel_data(body(60)), options=1)),
    Case("IP options from the peer", lambda s: s.answer_raw(body(60), options=2)),
    Case("a first fragment alone", lambda s: s.send_raw(channel_data(body(60)), fragment=0x2000)),
    Case("may be fragmented", lambda s: s.send_raw(channel_data(body(60)), fragment=0), 1),
    Case("last hop", lambda s: s.send_raw(channel_data(body(60)), ttl=1)),
    Case("marked", lambda s: s.send_raw(channel_data(body(60)), tos=0xB9), 1),
    Case("no checksum", lambda s: s.send_raw(channel_data(body(60)), {"checksum": 0}), 1),
    Case("no checksum from the peer", lambda s: s.answer_raw(body(61), {"checksum": 0}), 1),
    Case("IP length beyond the frame", lambda s: s.send_raw(channel_data(body(60)), length=1400)),
    Case("IP length short of UDP's", lambda s: s.send_raw(channel_data(body(60)), length=60)),
]
IPV6_ONLY = [
    Case("a first fragment alone", lambda s: s.send_raw(channel_data(body(68)), fragment=1)),
    Case("a fragment that is all", lambda s: s.send_raw(channel_data(body(60)), fragment=0)),
    Case("extension header", lambda s: s.send_raw(channel_data(body(60)), extension=1)),
    Case("last hop", lambda s: s.send_raw(channel_data(body(60)), hop_limit=1)),
    Case("marked", lambda s: s.send_raw(channel_data(body(60)), traffic_class=0xB9), 1),
    Case("no checksum", lambda s: s.send_raw(channel_data(body(60)), {"checksum": 0})),
]


def spoiled(*, ipv6: bool) -> list[Case]:
    """Packets that the sender's kernel would not send: they reach nobody, by neither plane.

    The kernel plane hands on an error as an error: checksums are corrected by what has changed.
    """
    good = channel_data(body(60))
    return [
        Case("wrong UDP checksum", lambda s: s.send_raw(good, {"checksum": 0x1234}), 1),
        Case("wrong UDP checksum, peer", lambda s: s.answer_raw(good, {"checksum": 0x1234}), 1),
        *(
            []
            if ipv6
            else [Case("wrong IP checksum", lambda s: s.send_raw(good, checksum_error=0x0101), 1)]
        ),
        Case("UDP length short", lambda s: s.send_raw(good, {"length": 40})),
        Case("UDP length long", lambda s: s.send_raw(good, {"length": 400})),
    ]


def framed(stage: Stage, payload: bytes) -> bytes:
    """The frame of a client's packet."""
    return frames.ip(stage.from_client, frames.udp(stage.from_client, payload))


def fragments(stage: Stage) -> None:
    """A packet in two pieces."""
    stage.send_frames(*in_fragments(stage.from_client, stage.wrapped(body(900))))


def fragments_from_the_peer(stage: Stage) -> None:
    """The same the other way."""
    stage.answer_frames(*in_fragments(stage.from_peer, body(900)))


def in_fragments(wire: Wire, payload: bytes) -> list[bytes]:
    """The fragments of a packet."""
    return frames.fragments(wire, frames.udp(wire, payload), 504)


def trailing(stage: Stage) -> None:
    """An Ethernet device pads short frames."""
    stage.send_frames(framed(stage, channel_data(b"short")) + bytes(9))


def other_mac(stage: Stage) -> None:
    """A frame that a bridge floods to a port of ours."""
    wire = stage.from_client._replace(destination_mac=bytes([2, 0, 0, 0, 0, 9]))
    stage.send_frames(frames.ip(wire, frames.udp(wire, channel_data(body(30)))))


def from_elsewhere(stage: Stage, port: int = 0, last: str = "") -> None:
    """Somebody else uses the client's channel."""
    host, own = stage.from_client.source
    host = host[: host.rindex(":" if ":" in host else ".") + 1] + last if last else host
    wire = stage.from_client._replace(source=(host, port or own))
    stage.send_frames(frames.ip(wire, frames.udp(wire, channel_data(body(30)))))


def another_peer(stage: Stage) -> None:
    """A peer's neighbour, whose address has the permission but no channel."""
    host, port = stage.from_peer.source
    wire = stage.from_peer._replace(source=(host, port ^ 1))
    stage.answer_frames(frames.ip(wire, frames.udp(wire, body(30))))


def in_pieces(size: int) -> Callable[[Stage], None]:
    """A packet that its sender's kernel keeps in several places, where the cable takes it so."""
    return lambda stage: corked(stage.client.sock, stage.wrapped(body(1000)), size)


def from_the_peer_in_pieces(size: int) -> Callable[[Stage], None]:
    """The same the other way."""
    return lambda stage: corked(stage.peer, body(1000), size, stage.relayed)


def corked(sock: socket.socket, data: bytes, size: int, *address: Any) -> None:
    """Send a first piece of so many bytes, and the rest behind it in the same packet."""
    for piece, flags in ((data[:size], socket.MSG_MORE), (data[size:], 0)):
        if address:
            sock.sendto(piece, flags, *address)
        else:
            sock.send(piece, flags)


def super_packets(stage: Stage) -> None:
    """Several packets that the sender's kernel keeps in one, as far as the cable allows."""
    sock = stage.client.sock
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 104)
    sock.send(b"".join(channel_data(body(100)) for _ in range(5)))
    sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
