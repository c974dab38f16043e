"""Questions to the kernel about devices, addresses, routes and neighbours, and word of changes.

rtnetlink(7). Answers are local and come at once, so questions block; news is read when it is there.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

# nlmsghdr, nlattr, ifinfomsg, ifaddrmsg, rtmsg, ndmsg of <linux/rtnetlink.h> and its neighbours.
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=8BI")
NEIGHBOUR = struct.Struct("=BxxxiHBB")
# Message types.
ERROR, DONE = 2, 3
NEW_LINK, GET_LINK, GET_ADDRESS, GET_ROUTE = 16, 18, 22, 26
NEW_NEIGHBOUR, DEL_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_QDISC, DEL_QDISC, NEW_FILTER, DEL_FILTER, GET_FILTER = 36, 37, 44, 45, 46
# Flags of messages.
REQUEST, ACKNOWLEDGE, DUMP, EXCLUSIVE, CREATE = 1, 4, 0x300, 0x200, 0x400
# Multicast groups: links, neighbours, tc, addresses, routes, rules (IPv4, IPv6).
GROUPS = 1 | 4 | 8 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
# IFLA_, RTA_, NDA_.
LINK_MAC, LINK_NAME, LINK_MTU, LINK_BELOW, LINK_QUEUE, LINK_INFO = 1, 3, 4, 5, 6, 18
LINK_NAMESPACE = 37
INFO_KIND = 1
TO, FROM, OUT_DEVICE, GATEWAY, METRICS, VIA = 1, 2, 4, 5, 8, 18
METRIC_MTU = 2
NEIGHBOUR_ADDRESS, NEIGHBOUR_MAC = 1, 2
# Of a route (rtm_type), of a neighbour (NUD_, NTF_), of a link (IFF_).
UNICAST, LOCAL = 1, 2
NUD_VALID = 0x80 | 0x40 | 0x10 | 0x08 | 0x04 | 0x02
NTF_USE = 1
UP, LOOPBACK = 1, 8
ETHERNET, LOOPBACK_TYPE = 1, 772
ROOM = 1 << 16


class Link(NamedTuple):
    """A network device."""

    device: int
    """Its index."""
    name: str
    mac: bytes
    mtu: int
    is_up: bool
    is_loopback: bool
    is_ethernet: bool
    kind: str = ""
    """What of a virtual device it is: ``veth``, ``bridge``, ``vlan``; empty: a network card."""
    below: int = 0
    """The device that it is made of: of a VLAN, the one whose frames are tagged."""
    queue: str = ""
    """What packets wait in that leave by it (the root qdisc): ``noqueue``, ``fq_codel``."""
    is_cable: bool = False
    """A veth whose far end is in another namespace."""


class Found(NamedTuple):
    """The way of packets to an address, as the routing table has it now."""

    device: int
    gateway: bytes
    """The neighbour's IP address, 4 or 16 bytes; the destination's own where it is on the link."""
    mtu: int
    """What the route or a discovered path says; 0: what the device takes."""
    is_local: bool
    """The destination is this machine."""


class Neighbour(NamedTuple):
    """A neighbour's hardware address; empty where it is not known."""

    device: int
    address: bytes
    mac: bytes


class Netlink:
    """A socket for questions."""

    def __init__(self) -> None:
        """Open it. :raises OSError: there is no rtnetlink here."""
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._sock.bind((0, 0))
        self._serial = 0

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def links(self) -> list[Link]:
        """Every device."""
        return [_link(body) for _, body in self._ask(GET_LINK, DUMP, LINK.pack(0, 0, 0, 0, 0))]

    def addressed(self) -> set[int]:
        """The devices that have an IP address."""
        answers = self._ask(GET_ADDRESS, DUMP, ADDRESS.pack(0, 0, 0, 0, 0))
        return {ADDRESS.unpack_from(body)[4] for _, body in answers}

    def route(self, source: bytes, destination: bytes) -> Found | None:
        """Where packets from an address of ours to ``destination`` go; None: nowhere."""
        bits, family = len(destination) * 8, _family(destination)
        body = ROUTE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
        body += attribute(TO, destination) + attribute(FROM, source)
        with suppress(OSError):  # unreachable, prohibited, or the source is no longer ours
            for _, answer in self._ask(GET_ROUTE, 0, body):
                return _found(answer, destination)
        return None

    def neighbour(self, device: int, address: bytes) -> Neighbour:
        """What is known of a neighbour."""
        body = NEIGHBOUR.pack(_family(address), device, 0, 0, 0)
        with suppress(OSError):  # there is none
            for _, answer in self._ask(GET_NEIGHBOUR, 0, body + attribute(1, address)):
                return read_neighbour(answer, NEW_NEIGHBOUR)
        return Neighbour(device, address, b"")

    def use(self, device: int, address: bytes) -> None:
        """Tell the kernel that a neighbour is in use, so that it goes on proving it reachable."""
        body = NEIGHBOUR.pack(_family(address), device, 0, NTF_USE, 0) + attribute(1, address)
        with suppress(OSError):  # it is gone, and word of that is on its way
            self.tell(NEW_NEIGHBOUR, 0, body)

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Everything of a kind. :raises OSError: the kernel refused."""
        return [answer for _, answer in self._ask(kind, DUMP, body)]

    def tell(self, kind: int, flags: int, body: bytes) -> None:
        """Ask for a change. :raises OSError: the kernel refused it."""
        self._ask(kind, ACKNOWLEDGE | flags, body)

    def _ask(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        self._serial += 1
        size = HEADER.size + len(body)
        self._sock.send(HEADER.pack(size, kind, REQUEST | flags, self._serial, 0) + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            for serial, answer, content in messages(self._sock.recv(ROOM)):
                if serial != self._serial:
                    continue
                if answer == DONE:
                    return answers
                if answer == ERROR:
                    number = -struct.unpack_from("=i", content)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return answers
                answers.append((answer, content))
                if not flags & (DUMP | ACKNOWLEDGE):
                    return answers


class News:
    """A socket that hears of changes. ``sock`` is readable when there is some."""

    def __init__(self) -> None:
        """Open it. :raises OSError: there is no rtnetlink here."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self.sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sock.bind((0, GROUPS))

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def read(self) -> tuple[list[Neighbour], bool]:
        """The neighbours that changed, and whether anything else did (or word was lost)."""
        neighbours: list[Neighbour] = []
        other = False
        for _ in range(64):
            try:
                data = self.sock.recv(ROOM)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: messages were lost
                other = True
                continue
            for _, kind, body in messages(data):
                if kind in {NEW_NEIGHBOUR, DEL_NEIGHBOUR}:
                    neighbours.append(read_neighbour(body, kind))
                else:
                    other = True
        return neighbours, other


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, padded."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) & 3)


def read_neighbour(body: bytes, kind: int) -> Neighbour:
    """A neighbour out of a message about it."""
    _, device, state, _, _ = NEIGHBOUR.unpack_from(body)
    found = attributes(body, NEIGHBOUR.size)
    usable = kind == NEW_NEIGHBOUR and state & NUD_VALID
    mac = found.get(NEIGHBOUR_MAC, b"") if usable else b""
    return Neighbour(device, found.get(NEIGHBOUR_ADDRESS, b""), mac if len(mac) == 6 else b"")


def _link(body: bytes) -> Link:
    _, hardware, index, flags, _ = LINK.unpack_from(body)
    found = attributes(body, LINK.size)
    kind = attributes(found.get(LINK_INFO, b""), 0).get(INFO_KIND, b"").rstrip(b"\0").decode()
    return Link(
        index,
        found.get(LINK_NAME, b"").rstrip(b"\0").decode(),
        found.get(LINK_MAC, b""),
        int.from_bytes(found.get(LINK_MTU, b""), "little"),
        bool(flags & UP),
        bool(flags & LOOPBACK),
        hardware == ETHERNET,
        kind,
        int.from_bytes(found.get(LINK_BELOW, b""), "little"),
        found.get(LINK_QUEUE, b"").rstrip(b"\0").decode(),
        kind == "veth" and LINK_NAMESPACE in found,
    )


def _found(body: bytes, destination: bytes) -> Found | None:
    kind = ROUTE.unpack_from(body)[7]
    found = attributes(body, ROUTE.size)
    if kind not in {UNICAST, LOCAL} or OUT_DEVICE not in found:
        return None
    gateway = found.get(GATEWAY) or found.get(VIA, b"")[2:] or destination
    metrics = attributes(found.get(METRICS, b""), 0)
    mtu = int.from_bytes(metrics.get(METRIC_MTU, b""), "little")
    device = int.from_bytes(found[OUT_DEVICE], "little")
    return Found(device, gateway, mtu, kind == LOCAL)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(serial number, type, body) of each."""
    offset = 0
    while offset + HEADER.size <= len(data):
        size, kind, _, serial, _ = HEADER.unpack_from(data, offset)
        yield serial, kind, data[offset + HEADER.size : offset + size]
        offset += max(size + 3 & ~3, HEADER.size)


def attributes(data: bytes, offset: int) -> dict[int, bytes]:
    """The attributes from an offset on, by their type."""
    return dict(_each_attribute(data, offset))


def _each_attribute(data: bytes, offset: int) -> Iterable[tuple[int, bytes]]:
    while offset + ATTRIBUTE.size <= len(data):
        size, kind = ATTRIBUTE.unpack_from(data, offset)
        if size < ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[offset + ATTRIBUTE.size : offset + size]
        offset += size + 3 & ~3


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6
