"""Next hops: by which device and to which hardware address packets to somebody go.

A path is a pair of addresses, ours and theirs; many share a hop. The routing table and the
neighbours are asked once; after that their news keeps the hops right. A hop that is not known is
written as such, and the packets go through user space, whose sending makes the kernel find out.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable

from turn.codec.values import pack_host
from turn.kernel.layout import ACROSS, BY_DEVICE, HOP, LOCAL, MOST_HOPS
from turn.kernel.rtnetlink import Found, Link, Neighbour, Netlink

UNKNOWN = HOP.pack(0, 0, b"", b"", BY_DEVICE)
LARGEST_PACKET = 65535
"""Bytes of the longest IP packet: what may go up this machine's own stack."""

HopKey = tuple[int, bytes, int, bool]


class Hop:
    """A next hop, at its place in the map."""

    __slots__ = ("address", "device", "index", "is_local", "mtu", "paths")

    def __init__(self, index: int, found: Found) -> None:
        self.index = index
        self.device = found.device
        self.address = found.gateway
        self.mtu = found.mtu
        self.is_local = found.is_local
        self.paths = 0

    @property
    def key(self) -> HopKey:
        """What makes two hops one."""
        return hop_key(Found(self.device, self.address, self.mtu, self.is_local))


class Passage:
    """From an address of ours to one of theirs."""

    __slots__ = ("destination", "hop", "source", "users")

    def __init__(self, source: str, destination: str) -> None:
        self.source = source
        self.destination = destination
        self.hop: Hop | None = None
        self.users = 0

    @property
    def index(self) -> int:
        """Of its hop; 0: there is none."""
        return self.hop.index if self.hop else 0


class Hops:
    """All paths and hops in use."""

    def __init__(
        self,
        netlink: Netlink,
        write: Callable[[int, bytes], None],
        taken: Collection[int] = (),
    ) -> None:
        """Begin with none.

        :param write: puts a hop into the map at an index.
        :param taken: places that are in use already; ``free`` them when they are not.
        """
        self._netlink = netlink
        self._write = write
        self._paths: dict[tuple[str, str], Passage] = {}
        self._hops: dict[HopKey, Hop] = {}
        self._by_neighbour: dict[tuple[int, bytes], set[Hop]] = {}
        # First in, first out: while ways are being moved to another hop, the place of the one that
        # they leave means nothing else.
        self._free = deque(place for place in range(1, MOST_HOPS) if place not in taken)
        self._links: dict[int, Link] = {}
        self._across: frozenset[int] = frozenset()

    def free(self, places: Iterable[int]) -> None:
        """Have places that were taken by others."""
        for place in places:
            self._write(place, UNKNOWN)
            self._free.append(place)

    def set_links(self, links: Iterable[Link], across: Collection[int] = ()) -> None:
        """The devices as they are now.

        :param across: those whose far end may receive at once what would be sent.
        """
        self._links = {link.device: link for link in links}
        self._across = frozenset(across)

    def acquire(self, source: str, destination: str) -> Passage:
        """The path between two addresses; ``release`` it when it is no longer used."""
        path = self._paths.get((source, destination))
        if path is None:
            path = self._paths[source, destination] = Passage(source, destination)
            self._resolve(path)
        path.users += 1
        return path

    def release(self, path: Passage) -> None:
        """Give a path back."""
        path.users -= 1
        if not path.users:
            del self._paths[path.source, path.destination]
            self._leave(path)

    def heard(self, neighbours: Iterable[Neighbour]) -> None:
        """Some neighbours have changed."""
        for neighbour in neighbours:
            for hop in self._by_neighbour.get((neighbour.device, neighbour.address), ()):
                self._write(hop.index, self._value(hop, neighbour.mac))

    def refresh(self) -> list[Passage]:
        """Ask anew about everything; gives the paths that have another hop now."""
        for hop in self._hops.values():
            self._write_hop(hop)
        changed = []
        for path in self._paths.values():
            before = path.hop
            self._resolve(path)
            if path.hop is not before:
                changed.append(path)
        return changed

    def keep(self) -> None:
        """Have the kernel prove the neighbours reachable, as it does for those that it sends to."""
        for device, address in self._by_neighbour:
            self._netlink.use(device, address)

    def _resolve(self, path: Passage) -> None:
        found = self._netlink.route(pack_host(path.source), pack_host(path.destination))
        hop = self._hops.get(hop_key(found)) if found else None
        if found and hop is None:
            hop = self._make(found)
        if hop is not None:
            hop.paths += 1
        self._leave(path)
        path.hop = hop

    def _make(self, found: Found) -> Hop | None:
        if not self._free:
            return None
        hop = Hop(self._free.popleft(), found)
        self._hops[hop.key] = hop
        if not hop.is_local:
            self._by_neighbour.setdefault((hop.device, hop.address), set()).add(hop)
        self._write_hop(hop)
        return hop

    def _leave(self, path: Passage) -> None:
        hop, path.hop = path.hop, None
        if hop is None:
            return
        hop.paths -= 1
        if hop.paths:
            return
        self._write(hop.index, UNKNOWN)
        self._free.append(hop.index)
        del self._hops[hop.key]
        if not hop.is_local:
            same = self._by_neighbour[hop.device, hop.address]
            same.discard(hop)
            if not same:
                del self._by_neighbour[hop.device, hop.address]

    def _write_hop(self, hop: Hop) -> None:
        mac = b"" if hop.is_local else self._netlink.neighbour(hop.device, hop.address).mac
        self._write(hop.index, self._value(hop, mac))

    def _value(self, hop: Hop, mac: bytes) -> bytes:
        link = self._links.get(hop.device)
        if link is None or not link.is_up:
            return UNKNOWN
        if hop.is_local and link.is_loopback:
            return HOP.pack(hop.device, LARGEST_PACKET, b"", b"", LOCAL)
        if hop.is_local or not link.is_ethernet or not mac:
            return UNKNOWN
        mtu = min(hop.mtu or link.mtu, link.mtu)
        road = ACROSS if hop.device in self._across else BY_DEVICE
        return HOP.pack(hop.device, mtu, mac, link.mac, road)


def hop_key(found: Found) -> HopKey:
    """What makes two hops one: this machine is one, whatever its address."""
    address = b"" if found.is_local else found.gateway
    return found.device, address, found.mtu, found.is_local
