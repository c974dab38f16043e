"""Whether XDP works at a device: the program is tried on frames of ours, and so is the driver.

First it is asked what it makes of a frame, bytes compared; then its verdict is carried out on a
few, and the kernel's tracepoint tells how many of them the driver has sent. These go to the
device's own hardware address, from a network for documentation (RFC 5737): no switch sends them
anywhere, and nobody would answer.
"""

import os
import struct
from contextlib import ExitStack
from typing import NamedTuple

from turn.codec.indication import data_indication_header
from turn.codec.values import Address, pack_host
from turn.kernel import bpf
from turn.kernel.bpf import BpfError
from turn.kernel.layout import HOP, INDEX, PORTS_PER_WORD, WORD, Way
from turn.kernel.program import FRAMES, WATCH, load
from turn.kernel.rtnetlink import Link
from turn.kernel.ways import Ways

REDIRECT = 4
"""XDP_REDIRECT"""
BATCH = 13
"""Frames that are sent at once: what is sent in such numbers is ours."""
TRIES = 10
"""As somebody else may send just as many at the same time."""
FATE = struct.Struct("=QQ")
"""Frames that were sent, frames that were dropped."""
CHANNEL = 0x4000
PAYLOAD = b"a self-test of the relay's"
NEVER = 1e9
"""Seconds of the monotonic clock: decades of a machine's life."""
LABEL = bytes(12)
"""The transaction id of Data indications."""
UDP = 17


class Sides(NamedTuple):
    """A client, the relay's two addresses, a peer."""

    client: Address
    server: Address
    relayed: Address
    peer: Address


def _sides(network: str) -> Sides:
    hosts = (f"{network}{host}" for host in (1, 2, 3, 4))
    ports = (50000, 3478, 50001, 50002)
    return Sides(*(Address(host, port) for host, port in zip(hosts, ports, strict=True)))


FAMILIES = (_sides("192.0.2."), _sides("2001:db8::"))


class Trial:
    """The programs of a self-test, with maps of their own."""

    def __init__(self) -> None:
        """Load them. :raises BpfError: the kernel refused."""
        with ExitStack() as undo:
            self._relay = load(None, FRAMES)
            undo.callback(self._relay.close)
            self._watch = load(None, WATCH)
            undo.callback(self._watch.close)
            point = bpf.attach_tracepoint(self._watch.fd, "xdp_devmap_xmit")
            undo.callback(os.close, point)
            self._undo = undo.pop_all()
        self._write_ways()

    def close(self) -> None:
        """Let go of them."""
        self._undo.close()

    def failure(self, link: Link) -> str | None:
        """What does not work at a device, in words; None: everything does.

        The device has to have a program already: before that, many have no queues for it.
        """
        maps = self._relay.maps
        maps["hops"].update(INDEX.pack(1), HOP.pack(link.device, 1500, link.mac, link.mac, 0))
        try:
            maps["devices"].update(INDEX.pack(link.device), INDEX.pack(link.device))
            for sides in FAMILIES:
                for given, wanted in pairs(sides, link.mac):
                    verdict, made = bpf.run_once(self._relay.fd, given, link.device)
                    if (verdict, without_id(made)) != (REDIRECT, without_id(wanted)):
                        return "the program makes something else of a frame"
            return None if self._sends(link) else "its driver drops what it is to send"
        except BpfError as error:
            return error.strerror
        finally:
            maps["devices"].delete(INDEX.pack(link.device))

    def _sends(self, link: Link) -> bool:
        given, _ = next(iter(pairs(FAMILIES[0], link.mac)))
        for _ in range(TRIES):
            before = self._fates()
            bpf.run_live(self._relay.fd, given, link.device, BATCH, BATCH)
            sent, dropped = (now - then for now, then in zip(self._fates(), before, strict=True))
            if sent == 0 or (sent, dropped) == (BATCH, 0):
                return bool(sent)
        return False

    def _fates(self) -> tuple[int, int]:
        sent, dropped = FATE.unpack(self._watch.maps["fates"].get(INDEX.pack(BATCH)) or bytes(16))
        return sent, dropped

    def _write_ways(self) -> None:
        table = Ways(self._relay.maps)
        for sides in FAMILIES:
            for way in ways(sides):
                table.of(way.family).write(way, (1, 1), NEVER, (), LABEL)
        table.close()
        word, bit = divmod(FAMILIES[0].server.port, PORTS_PER_WORD)
        self._relay.maps["ports"].update(INDEX.pack(word), WORD.pack(1 << bit))


def ways(sides: Sides) -> tuple[Way, Way]:
    """To the peer out of ChannelData, to the client in a Data indication: the longest header."""
    client, server, relayed, peer = sides
    return (
        Way(client, server, relayed, peer, channel_in=CHANNEL),
        Way(peer, relayed, server, client, shown=peer),
    )


def pairs(sides: Sides, mac: bytes) -> list[tuple[bytes, bytes]]:
    """Frames that come in, and what has to go out for each."""
    client, server, relayed, peer = sides
    padding = bytes(-len(PAYLOAD) & 3)
    header = bytearray(data_indication_header(LABEL, peer))
    size = len(header) - 20 + len(PAYLOAD) + len(padding)
    struct.pack_into("!H", header, 2, size)
    struct.pack_into("!H", header, len(header) - 2, len(PAYLOAD))
    channel_data = struct.pack("!HH", CHANNEL, len(PAYLOAD)) + PAYLOAD
    return [
        (frame(mac, client, server, channel_data, 64), frame(mac, relayed, peer, PAYLOAD, 63)),
        (
            frame(mac, peer, relayed, PAYLOAD, 64),
            frame(mac, server, client, bytes(header) + PAYLOAD + padding, 63),
        ),
    ]


def frame(mac: bytes, source: Address, destination: Address, payload: bytes, hops: int) -> bytes:
    """A UDP packet in an Ethernet frame from a device to itself."""
    one, other = pack_host(source.host), pack_host(destination.host)
    length = 8 + len(payload)
    head = struct.pack("!HHHH", source.port, destination.port, length, 0)
    pseudo = one + other + struct.pack("!II", length, UDP)
    body = head[:6] + struct.pack("!H", checksum(pseudo + head + payload) or 0xFFFF) + payload
    if len(one) == 16:
        ip = struct.pack("!IHBB", 6 << 28, length, UDP, hops) + one + other
        return mac + mac + b"\x86\xdd" + ip + body
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, hops, UDP, 0) + one + other
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return mac + mac + b"\x08\x00" + ip + body


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += bytes(len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def without_id(made: bytes) -> bytes:
    """A frame whose IPv4 identification is 0: the program draws it at random. A wrong IP checksum
    stays a wrong one.
    """
    if made[12:14] != b"\x08\x00":
        return made
    head = made[14:18] + b"\0\0" + made[20:24]
    rest = made[26:34]
    right = checksum(made[14:34]) == 0
    return (
        made[:14]
        + head
        + struct.pack("!H", checksum(head + b"\0\0" + rest) ^ (not right))
        + (made[26:])
    )
