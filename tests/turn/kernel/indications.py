"""The same stage for a client that knows no channels, and a script of indications to play on it."""

import struct
from collections.abc import Callable
from typing import Any

from tests.turn.kernel.script import (
    LARGEST,
    MARK,
    PEER_PORT,
    Case,
    Stage,
    answers,
    body,
    fragments,
    from_the_peer_in_pieces,
    in_pieces,
    sends,
)
from turn.codec import registry
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

TRANSACTION = bytes(range(200, 212))


class IndicationStage(Stage):
    """A client that sends to the peer by Send indications."""

    async def admit(self) -> None:
        """Install the permission."""
        reply = await self.client.request(
            Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, self.peer_address)
        )
        assert reply.get(registry.ERROR_CODE) is None, reply.get(registry.ERROR_CODE)

    def wrapped(self, payload: bytes) -> bytes:
        return self.indication(payload)

    def indication(
        self, payload: bytes, *more: tuple[registry.Attribute[Any], Any], **how: Any
    ) -> bytes:
        """A Send indication to the peer."""
        attributes = ((registry.XOR_PEER_ADDRESS, self.peer_address), (registry.DATA, payload))
        return build(Method.SEND, MessageClass.INDICATION, TRANSACTION, (*attributes, *more), **how)

    def mark(self) -> bytes:
        return self.indication(MARK, (registry.SOFTWARE, "mark"))

    def is_empty(self, data: bytes) -> bool:
        return not data[0] >> 6 and parse_untrusted(data).get(registry.DATA) == b""


def changed(at: int, value: bytes) -> Callable[[Stage], None]:
    """A good indication, but for these bytes."""

    def play(stage: Stage) -> None:
        good = bytearray(stage.wrapped(body(61)))
        good[at : at + len(value)] = value
        stage.send_raw(bytes(good))

    return play


def whole(*parts: bytes) -> bytes:
    """A Send indication of these attributes."""
    length = sum(map(len, parts))
    head = struct.pack("!HHI12s", 0x0016, length, 0x2112A442, TRANSACTION)
    return head + b"".join(parts)


def swapped(stage: Stage) -> None:
    """DATA before XOR-PEER-ADDRESS: no rule against it."""
    good = stage.wrapped(body(60))
    size = 44 if not stage.is_ipv6 else 56
    peer, data = good[20 : size - 12], good[size - 12 :]
    stage.send_raw(whole(data, peer))


def to_another(stage: IndicationStage, port: int = 0, host: str = "") -> None:
    """An indication that names somebody else."""
    peer = Address(host or stage.peer_address.host, port or stage.peer_address.port)
    named = (registry.XOR_PEER_ADDRESS, peer)
    data = (registry.DATA, body(50))
    stage.send_raw(build(Method.SEND, MessageClass.INDICATION, TRANSACTION, (named, data)))


def to_another_port(stage: IndicationStage) -> None:
    """The permission is for all ports; a socket is there, as an ICMP error comes when it likes."""
    with stage.network.peer.udp(PEER_PORT + 1, ipv6=stage.is_ipv6) as sink:
        to_another(stage, port=PEER_PORT + 1)
        assert sink.recv(2048) == body(50)


def of_indications(*, ipv6: bool) -> list[Case]:
    """What is played by IPv4 and by IPv6."""
    room = LARGEST - (48 if ipv6 else 28)
    longest = (room - (48 if ipv6 else 36)) & ~3
    data = 44 if ipv6 else 32
    return [
        *(
            case
            for size in (4, 5, 6, 7, 8, 63, 172, 1200, longest - 1, longest)
            for case in (
                Case(f"{size} to the peer", sends(size), 1),
                Case(f"{size} to the client", answers(size), 1),
            )
        ),
        *(Case(f"{size} to the peer", sends(size), 1) for size in (1, 2, 3)),
        *(Case(f"{size} to the client", answers(size)) for size in (1, 2, 3)),
        Case("many to the peer", sends(*range(90, 120)), 30),
        Case("many to the client", answers(*range(90, 120)), 30),
        Case("empty", lambda s: s.send(b"")),
        *(
            Case(f"no room for the header: {size}", answers(size))
            for size in (longest + 1, longest + 2, room - 1, room)
        ),
        Case("longer than a packet", sends(longest + 1)),
        Case("padding that is not zero", padded, 1),
        Case("another type", changed(0, b"\x00\x17")),
        Case("another cookie", changed(4, b"\x21\x12\xa4\x43")),
        Case("a length that is short", changed(2, b"\x00\x44")),
        Case("a length that is long", changed(2, b"\x01\x00")),
        Case("another attribute", changed(20, b"\x00\x16")),
        Case("an address of another size", changed(22, b"\x00\x0c")),
        Case("a reserved byte that is not zero", changed(24, b"\x01")),
        Case("an address of another family", changed(25, b"\x03")),
        Case("no DATA", changed(data, b"\x00\x14")),
        Case("DATA that is long", changed(data + 2, b"\x00\x50")),
        Case("DATA that is short", changed(data + 2, b"\x00\x30")),
        Case("the other order", swapped),
        Case("DONT-FRAGMENT", lambda s: s.send_raw(s.indication(body(9), DONT_FRAGMENT))),
        Case("SOFTWARE", lambda s: s.send_raw(s.indication(body(9), (registry.SOFTWARE, "x")))),
        *(
            Case(f"FINGERPRINT {size}", with_fingerprint(size), 1)
            for size in (1, 2, 3, 4, 5, 61, 172, 1200, longest - 8)
        ),
        Case("FINGERPRINT on an empty one", with_fingerprint(0)),
        Case("another attribute in its place", changed_end(-8, b"\x80\x22")),
        Case("FINGERPRINT of another size", changed_end(-6, b"\x00\x03")),
        Case("a wrong FINGERPRINT", wrong_fingerprint),
        Case("bytes behind the message", lambda s: s.send_raw(s.wrapped(body(40)) + bytes(4))),
        Case("half a header", lambda s: s.send_raw(s.wrapped(body(40))[:30])),
        Case("another port of the peer's", to_another_port),
        Case("another peer", lambda s: to_another(s, host="fd92:2::9" if ipv6 else "10.92.2.9")),
        Case("a channel that is not bound", lambda s: s.send_raw(b"\x40\x01\0\4abcd")),
        Case("a wrong UDP checksum", lambda s: s.send_raw(s.wrapped(body(61)), {"checksum": 7}), 1),
        *(
            Case(f"in pieces of {size} to the peer", in_pieces(size), 1)
            for size in (1, 20, 44, 500)
        ),
        *(
            Case(f"in pieces of {size} to the client", from_the_peer_in_pieces(size), 1)
            for size in (1, 500)
        ),
        Case("fragments", fragments),
        *([Case("a hop", one_hop)] if ipv6 else []),
    ]


DONT_FRAGMENT = (registry.DONT_FRAGMENT, True)


def padded(stage: Stage) -> None:
    """RFC 8489 §14: padding may hold any value."""
    good = bytearray(stage.wrapped(body(61)))
    good[-3:] = b"\xde\xad\xbe"
    stage.send_raw(bytes(good))


def with_fingerprint(size: int) -> Callable[[IndicationStage], None]:
    """As libjuice sends them."""
    return lambda stage: stage.send_raw(stage.indication(body(size), fingerprint=True))


def changed_end(at: int, value: bytes) -> Callable[[IndicationStage], None]:
    """A good indication with FINGERPRINT, but for these bytes, counted from its end."""

    def play(stage: IndicationStage) -> None:
        good = bytearray(stage.indication(body(61), fingerprint=True))
        good[at : len(good) + at + len(value)] = value
        stage.send_raw(bytes(good))

    return play


def wrong_fingerprint(stage: IndicationStage) -> None:
    good = bytearray(stage.indication(body(61), fingerprint=True))
    good[-1] ^= 1
    stage.send_raw(bytes(good))


def one_hop(stage: Stage) -> None:
    stage.send_raw(stage.wrapped(body(60)), hop_limit=1)
