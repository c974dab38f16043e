"""Frames, byte by byte: what an honest host sends, and what no honest host would."""

import struct
from itertools import count
from typing import NamedTuple

from turn.codec.values import pack_host

UDP = 17
identifications = count(1)
"""Two packets of one pair of hosts must not share one, lest their fragments mix."""


class Wire(NamedTuple):
    """Who sends a frame to whom."""

    source_mac: bytes
    destination_mac: bytes
    source: tuple[str, int]
    destination: tuple[str, int]


def ones_complement(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += bytes(len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp(wire: Wire, payload: bytes, *, checksum: int | None = None, length: int = 0) -> bytes:
    """A UDP datagram; ``checksum`` in place of the right one, ``length`` in place of its own."""
    size = length or 8 + len(payload)
    head = struct.pack("!HHHH", wire.source[1], wire.destination[1], size, 0)
    source, destination = pack_host(wire.source[0]), pack_host(wire.destination[0])
    pseudo = source + destination + struct.pack("!IxxxB", 8 + len(payload), UDP)
    right = ones_complement(pseudo + head + payload) or 0xFFFF
    return head[:6] + struct.pack("!H", right if checksum is None else checksum) + payload


def ipv4(wire: Wire, body: bytes, **how: int) -> bytes:
    """An Ethernet frame with an IPv4 packet.

    :param how: ttl, tos, fragment (flags and offset), identification, length, options (words),
        checksum_error.
    """
    options = bytes([1]) * (4 * how.get("options", 0))
    total = how.get("length", 20 + len(options) + len(body))
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45 + len(options) // 4,
        how.get("tos", 0),
        total,
        how.get("identification") or next(identifications),
        how.get("fragment", 0x4000),
        how.get("ttl", 64),
        UDP,
        0,
        pack_host(wire.source[0]),
        pack_host(wire.destination[0]),
    )
    checksum = ones_complement(head + options) ^ how.get("checksum_error", 0)
    head = head[:10] + struct.pack("!H", checksum) + head[12:] + options
    return wire.destination_mac + wire.source_mac + b"\x08\x00" + head + body


def ipv6(wire: Wire, body: bytes, **how: int) -> bytes:
    """An Ethernet frame with an IPv6 packet.

    :param how: traffic_class, hop_limit, extension (a Destination Options header of nothing but
        padding), fragment (offset in bytes, and 1 where more follow), identification.
    """
    following, extension = UDP, b""
    if how.get("extension"):
        extension, following = bytes([UDP, 0, 1, 4, 0, 0, 0, 0]), 60
    if "fragment" in how:
        number = how.get("identification") or next(identifications)
        extension, following = struct.pack("!BxHI", UDP, how["fragment"], number), 44
    head = struct.pack(
        "!IHBB16s16s",
        0x60000000 | how.get("traffic_class", 0) << 20,
        len(extension) + len(body),
        following,
        how.get("hop_limit", 64),
        pack_host(wire.source[0]),
        pack_host(wire.destination[0]),
    )
    return wire.destination_mac + wire.source_mac + b"\x86\xdd" + head + extension + body


def ip(wire: Wire, body: bytes, **how: int) -> bytes:
    """An Ethernet frame of the family of its addresses."""
    return (ipv6 if ":" in wire.source[0] else ipv4)(wire, body, **how)


def tagged(frame: bytes, vlan: int) -> bytes:
    """The frame with a VLAN tag (IEEE 802.1Q)."""
    return frame[:12] + struct.pack("!HH", 0x8100, vlan) + frame[12:]


def fragments(wire: Wire, body: bytes, size: int) -> list[bytes]:
    """The same packet in fragments; ``size`` is a multiple of 8."""
    identification = next(identifications)
    is_ipv6 = ":" in wire.source[0]
    more, unit = (1, 1) if is_ipv6 else (0x2000, 8)
    return [
        ip(
            wire,
            body[at : at + size],
            fragment=(more if at + size < len(body) else 0) | at // unit,
            identification=identification,
        )
        for at in range(0, len(body), size)
    ]
