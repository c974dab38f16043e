"""The layout of the maps: what ``layout.h`` says in C. A test holds the two together."""

import ipaddress
import struct
from itertools import pairwise
from typing import NamedTuple

from turn.codec.indication import data_indication_header
from turn.codec.values import Address, pack_host

WAY = {
    4: struct.Struct("=4s4s8s4s4s4sHHQ24x36s20s8x"),
    6: struct.Struct("=16s16s8s16s16s4sHHQ40x48s20s12x"),
}
"""Source and destination, ``PORTS``, the new ones and their ports, hop behind (and ``LIMITED``),
hop ahead, expiry, the counters. The rest, which lies elsewhere: what stands before the payload of a
Data indication (of a Send indication's way: the peer that it names), indices of buckets."""
PORTS = struct.Struct("!HHHH")
"""Of source and destination, the channel that a packet carries, the one to prepend: one word."""
NEW_PORTS = struct.Struct("!HH")
HOPS = struct.Struct("=HH")
PEER = {4: struct.Struct("!4sH2x"), 6: struct.Struct("!16sH6x")}
"""The second part of a key: the peer that a Send indication names."""
INDICATION = {4: 36, 6: 48}
"""Bytes of what stands before the payload of an indication of the plain shape."""
NAMED = 0x0016
"""In the place of a channel: a Send indication's way (RFC 8656 §16: its type)."""
LIMITED = 0x8000
"""Beside the hop behind: there are buckets to pass."""


class Parts(NamedTuple):
    """Where the parts of a way are, in words (8 bytes)."""

    ports: int
    expires: int
    packets: int
    bytes: int
    frames: int
    size: int
    """Of all that, and here the rest begins."""
    header: int
    spoiled: int
    buckets: int
    """In half words."""
    rest: int
    """Size of the rest; its parts count from its own beginning."""

    @property
    def hops(self) -> int:
        """In half words: just before the expiry."""
        return 2 * self.expires - 1


PARTS = {
    4: Parts(1, 4, 5, 6, 7, 8, 0, 7, 9, 8),
    6: Parts(4, 10, 11, 12, 13, 16, 0, 9, 12, 10),
}
LAYOUT = 9
"""Another number for whatever means something else: pinned maps outlive the process."""
ROW = 8
"""Places in a row; a key has two rows, and in each a place that is looked at first."""
MOST_WAYS4, MOST_WAYS6 = 131072, 65536
MOST_WAYS = {4: MOST_WAYS4, 6: MOST_WAYS6}
"""Places for ways of each family."""
FIRST_PLACE, SECOND_PLACE = 30, 47
"""Bits of the hash below the numbers of these places."""
MIX = 0x9E3779B97F4A7C15
SEED = struct.Struct("=64sII")
"""A secret, and how many places are in use of each family."""
LEAST_PLACES = 4096
HOP = struct.Struct("=II6s6sI")
"""Device, MTU, destination MAC, source MAC, how it gets there."""
BY_DEVICE, LOCAL, ACROSS = range(3)
"""Sent by the device; this machine itself; received at once by the far end of a veth."""
MOST_LIMITS = 5
BUCKETS_OF_WAY = struct.Struct(f"={MOST_LIMITS}I")
"""Indices of buckets; 0: no more."""
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
    shown: Address | None = None
    """The peer that a Data indication shows, in place of a channel number (peer to client)."""

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source.host else 4

    def key(self) -> bytes:
        """What is hashed."""
        source, destination = pack_host(self.source.host), pack_host(self.destination.host)
        channel = NAMED if self.named else self.channel_in
        head = (
            source + destination + PORTS.pack(self.source.port, self.destination.port, channel, 0)
        )
        return head + self._peer() if self.named else head

    def value(
        self, behind: int, ahead: int, expires: int, buckets: bytes, transaction: bytes
    ) -> bytes:
        """As the map has it, before anything has been counted.

        :param behind: hop where packets come from, and ``LIMITED``.
        :param ahead: hop where they go to.
        :param expires: nanoseconds of the monotonic clock.
        :param buckets: ``BUCKETS_OF_WAY``.
        :param transaction: the id of all Data indications: they are never answered.
        """
        header = self._peer() if self.named else b""
        if self.shown:
            header = data_indication_header(transaction, self.shown)
        channel = NAMED if self.named else self.channel_in
        return WAY[self.family].pack(
            pack_host(self.source.host),
            pack_host(self.destination.host),
            PORTS.pack(self.source.port, self.destination.port, channel, self.channel_out),
            pack_host(self.new_source.host),
            pack_host(self.new_destination.host),
            NEW_PORTS.pack(self.new_source.port, self.new_destination.port),
            behind,
            ahead,
            expires,
            header,
            buckets,
        )

    def is_in(self, value: bytes) -> bool:
        """Whether a way of the map does the same to the same packets."""
        parts = PARTS[self.family]
        start = 8 * (parts.size + parts.header)
        end, hops = start + INDICATION[self.family], 4 * parts.hops
        mine = self.value(0, 0, 0, b"", value[start + 8 : start + 20])
        return mine[:hops] == value[:hops] and mine[start:end] == value[start:end]

    def _peer(self) -> bytes:
        assert self.named is not None
        return PEER[self.family].pack(pack_host(self.named.host), self.named.port)


class Found(NamedTuple):
    """What a way of the map says of itself."""

    key: bytes
    """``Way.key``."""
    named: tuple[Address, Address, Address] | None
    """Client, server and named peer of a Send indication's way."""
    is_from_client: bool
    behind: int
    ahead: int
    buckets: frozenset[int]


def read_way(family: int, value: bytes) -> Found:
    """Read a way as it is in the map."""
    source, destination, ports, _, _, _, behind, ahead, _, header, limits = WAY[family].unpack(
        value
    )
    source_port, destination_port, channel, _ = PORTS.unpack(ports)
    key, named = source + destination + ports[:6] + bytes(2), None
    if channel == NAMED:
        peer, port = PEER[family].unpack_from(header)
        key += PEER[family].pack(peer, port)
        named = (
            Address(_host(source), source_port),
            Address(_host(destination), destination_port),
            Address(_host(peer), port),
        )
    buckets = frozenset(BUCKETS_OF_WAY.unpack(limits)) - {0}
    return Found(key, named, bool(channel), behind & ~LIMITED, ahead, buckets)


def _host(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


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
