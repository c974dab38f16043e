"""The layout of the maps: what ``layout.h`` says in C. A test holds the two together."""

import ipaddress
import struct
from typing import NamedTuple

from turn.codec.values import Address

# `!` where the addresses and ports are, as they stand in a packet; the machine's order elsewhere.
TUPLE = {4: struct.Struct("!4s4sHHHxx"), 6: struct.Struct("!16s16sHHHxx")}
"""Source, destination, their ports, channel: a key, and the first part of a way."""
WAY_END = struct.Struct("=IHH")
"""Meter, hop behind, hop ahead."""
HOP = struct.Struct("=II6s6sI")
"""Device, MTU, destination MAC, source MAC, whether it is this machine itself."""
METER = struct.Struct("=QQQ40x")
"""Expiry, packets, bytes."""
METER_WORDS = METER.size // 8
EXPIRES, PACKETS, BYTES = range(3)
"""The words of a meter."""
WORD = struct.Struct("=Q")
INDEX = struct.Struct("=I")
MOST_WAYS = 131072
MOST_HOPS = 16384
PORT_WORDS = 1024
PORTS_PER_WORD = 64


class Way(NamedTuple):
    """One direction of a route: found by a packet's own addresses, it says the new ones."""

    source: Address
    destination: Address
    channel_in: int
    """The channel number that the packet carries (client to peer), or 0."""
    new_source: Address
    new_destination: Address
    channel_out: int
    """The channel number to prepend (peer to client), or 0."""

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.source.host else 4

    def key(self) -> bytes:
        """As the map has it."""
        return _tuple(self.source, self.destination, self.channel_in)

    def value(self, meter: int, behind: int, ahead: int) -> bytes:
        """As the map has it; ``behind`` and ``ahead`` are hops."""
        head = _tuple(self.new_source, self.new_destination, self.channel_out)
        return head + WAY_END.pack(meter, behind, ahead)


def _tuple(source: Address, destination: Address, channel: int) -> bytes:
    one, other = packed(source.host), packed(destination.host)
    shape = TUPLE[4 if len(one) == 4 else 6]
    return shape.pack(one, other, source.port, destination.port, channel)


def packed(host: str) -> bytes:
    """An IP address, 4 or 16 bytes."""
    return ipaddress.ip_address(host).packed
