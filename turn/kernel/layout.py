"""The layout of the maps: what ``layout.h`` says in C. A test holds the two together."""

import ipaddress
import struct
from itertools import pairwise
from typing import NamedTuple

from turn.codec.values import Address, pack_host

# `!` where the addresses and ports are, as they stand in a packet; the machine's order elsewhere.
TUPLE = {4: struct.Struct("!4s4sHHHxx"), 6: struct.Struct("!16s16sHHHxx")}
"""Source, destination, their ports, channel: a key, and the first part of a way."""
NAME = {4: struct.Struct("!4s4sHH4sHxx"), 6: struct.Struct("!16s16sHH16sHxx")}
"""Source, destination, their ports, the named peer, its port: the key of a Send indication."""
WAY_END = {4: struct.Struct("=IHH36s"), 6: struct.Struct("=IHH48s")}
"""Meter, hop behind, hop ahead, what stands before the payload of a Data indication."""
LAYOUT = 5
"""Another number for whatever means something else: pinned maps outlive the process."""
HOP = struct.Struct("=II6s6sI")
"""Device, MTU, destination MAC, source MAC, how it gets there."""
BY_DEVICE, LOCAL, ACROSS = range(3)
"""Sent by the device; this machine itself; received at once by the far end of a veth."""
METER = struct.Struct("=QQQQQ16s8x")
"""Expiry, packets by tc, bytes, packets that were spoiled, packets by XDP, ``LIMITS``."""
METER_WORDS = METER.size // 8
EXPIRES, PACKETS, BYTES, SPOILED, FRAMES, LIMITS = range(6)
"""The words of a meter."""
MOST_LIMITS = 4
BUCKETS_OF_METER = struct.Struct(f"={MOST_LIMITS}I")
"""Indices of buckets; 0: no more. Two words of a meter."""
BUCKET = struct.Struct("=QQQQ")
BUCKET_WORDS = BUCKET.size // 8
FULL, LENT, PRICE, REFUSED = range(4)
"""The words of a bucket: full again by what the kernel took, by what we took, price, refused."""
TICKS = 16
"""Of a bucket's time, in a nanosecond."""
PRICE_SHIFT = 12
MOST_BUCKETS = 262144
WORD = struct.Struct("=Q")
INDEX = struct.Struct("=I")
CRC_POLYNOMIAL = 0xEDB88320
CRC_WORDS = 4 * 256
MOST_WAYS = 131072
MOST_HOPS = 16384
MOST_DEVICES = 1024
PORT_WORDS = 1024
PORTS_PER_WORD = 64


class Way(NamedTuple):
    """One direction of a route: found by a packet's own addresses, it says the new ones."""

    source: Address
    destination: Address
    new_source: Address
    new_destination: Address
    channel_in: int = 0
    """The channel number that the packet carries (client to peer), or 0."""
    channel_out: int = 0
    """The channel number to prepend (peer to client), or 0."""
    named: Address | None = None
    """The peer that a Send indication names (client to peer)."""
    header: bytes = b""
    """What to prepend in place of a channel number (peer to client): of a Data indication."""

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source.host else 4

    @property
    def map(self) -> str:
        """The map that it is in."""
        return f"{'names' if self.named else 'ways'}{self.family}"

    def key(self) -> bytes:
        """As the map has it."""
        if self.named is None:
            return _tuple(self.source, self.destination, self.channel_in)
        return NAME[self.family].pack(
            pack_host(self.source.host),
            pack_host(self.destination.host),
            self.source.port,
            self.destination.port,
            pack_host(self.named.host),
            self.named.port,
        )

    def value(self, meter: int, behind: int, ahead: int) -> bytes:
        """As the map has it; ``behind`` and ``ahead`` are hops."""
        head = _tuple(self.new_source, self.new_destination, self.channel_out)
        return head + WAY_END[self.family].pack(meter, behind, ahead, self.header)


def named_in(key: bytes) -> tuple[Address, Address, Address]:
    """Client, server and named peer of a Send indication's key."""
    shape = NAME[4 if len(key) == NAME[4].size else 6]
    source, destination, source_port, destination_port, peer, peer_port = shape.unpack(key)
    return (
        Address(_host(source), source_port),
        Address(_host(destination), destination_port),
        Address(_host(peer), peer_port),
    )


def _host(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def _tuple(source: Address, destination: Address, channel: int) -> bytes:
    one, other = pack_host(source.host), pack_host(destination.host)
    shape = TUPLE[4 if len(one) == 4 else 6]
    return shape.pack(one, other, source.port, destination.port, channel)


def remainders() -> bytes:
    """The tables of CRC-32 (FINGERPRINT, RFC 8489 §14.7): what a byte does, 1 to 4 bytes before."""
    tables = [[0] * 256 for _ in range(4)]
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (CRC_POLYNOMIAL if remainder & 1 else 0)
        tables[0][byte] = remainder
    for before, table in pairwise(tables):
        for byte, remainder in enumerate(before):
            table[byte] = remainder >> 8 ^ tables[0][remainder & 255]
    return struct.pack(f"={CRC_WORDS}I", *(word for table in tables for word in table))
