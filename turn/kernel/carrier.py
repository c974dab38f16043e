"""The kernel plane: writes routes into BPF maps, and reads back what went by them.

It takes the routes that the program can carry whole: a UDP client, client and peer of one address
family. All other packets go through user space; both take of the same token buckets.
"""

import asyncio
import errno
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import structlog

from turn.codec.values import Address
from turn.kernel.bpf import BpfError
from turn.kernel.buckets import Buckets
from turn.kernel.cables import across
from turn.kernel.hops import Hops, Passage
from turn.kernel.inherited import Inherited
from turn.kernel.layout import INDEX, PORTS_PER_WORD, WORD, Way
from turn.kernel.loader import Lent, attach, borrow, explained
from turn.kernel.plane import Unavailable
from turn.kernel.rtnetlink import Netlink, News
from turn.kernel.ways import Place, Table, Ways
from turn.kernel.xdp import Hook
from turn.routes import NOTHING, ONE_PACKET, Carried, FiveTuple, Route, ThroughProxy, Transport
from turn.stats import DropReason

log = structlog.get_logger("turn")

SETTLE = 0.2
"""Seconds to wait after a change of devices or routes: they come in groups."""
KEEP = 15.0
"""Seconds between telling the kernel which neighbours are in use."""
LOOK = 0.25
"""Seconds between looks at which routes have become worth the kernel."""
WORTH = 8
"""Packets that make it so: ICE tries many peers by a packet or two, and keeps one; and user space
relays so many for about what it takes to write a route."""
LOOKED_AT, WRITTEN = 1000, 64
"""Routes at a time (of those that wait an eighth, where that is more): the loop has other things to
do, and most of what ICE has found is never used."""
SOON = 0.005
"""Seconds until the next look where there was more to write."""


class Offload:
    """A route that the program carries: two ways."""

    __slots__ = ("client", "peer", "places", "table")

    def __init__(self, table: Table, client: Passage, peer: Passage) -> None:
        self.table = table
        self.client = client
        self.peer = peer
        self.places: list[Place] = []
        """Of its ways in the table: from the client, from the peer."""

    def hops(self, index: int) -> tuple[int, int]:
        """Where the packets of a way come from, and where they go to."""
        ends = self.client.index, self.peer.index
        return ends if index == 0 else (ends[1], ends[0])

    @property
    def carried(self) -> Carried:
        """What went by it."""
        if len(self.places) < 2:  # it was not written whole
            return NOTHING
        sent, received = (self.table.read(place) for place in self.places)
        return Carried(*sent[:2], *received[:2], sent[2] + received[2])


GONE = "the process that lent the kernel program took it away; the next one that lends it is used"


class KernelPlane:
    """Carries what it can in the kernel."""

    def __init__(
        self,
        directory: Path | None = None,
        hook: Hook = "auto",
        *,
        keep: bool = False,
        lent: bool = False,
    ) -> None:
        """Have the program at work. :raises Unavailable: it cannot be.

        :param directory: in a bpffs, where the program is lent or kept.
        :param hook: where it may carry packets, unless it is lent.
        :param keep: have what the kernel carries outlive this process.
        :param lent: use only what another process lends.
        """
        if not sys.platform.startswith("linux"):
            raise Unavailable("the kernel plane needs Linux")
        self._hook = hook
        with ExitStack() as undo:
            try:
                self._netlink = Netlink()
                undo.callback(self._netlink.close)
                if lent and directory:
                    self._attached = borrow(directory)
                else:
                    self._attached = attach(self._netlink, directory, hook, keep=keep)
                self._open(undo)
            except OSError as error:
                raise Unavailable(explained(error)) from None
            self._undo = undo.pop_all()
        self._offloads: dict[Route, Offload] = {}
        self._retired = NOTHING
        self._waiting: dict[Route, None] = {}
        """Routes that are not worth it yet, in the order in which they are to be looked at."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def _open(self, undo: ExitStack) -> None:
        """Have what it needs beside the program."""
        failed = undo.enter_context(ExitStack())
        failed.callback(self._attached.close)
        self._news = News()
        undo.callback(self._news.close)
        self._maps = self._attached.maps
        self._ways = Ways(self._maps)
        undo.callback(self._ways.close)
        self._inherited = Inherited(self._ways, self._maps["ports"])
        self._buckets = Buckets(self._maps["buckets"], self._inherited.buckets)
        undo.callback(self._buckets.close)
        self._hops = Hops(self._netlink, self._write_hop, self._inherited.hops)
        self._ports = dict(self._inherited.ports)
        self._follow_devices()
        failed.pop_all()

    @property
    def is_lent(self) -> bool:
        """Whether another process has the program at work."""
        return isinstance(self._attached, Lent)

    @property
    def is_gone(self) -> bool:
        """Whether that one has ended it."""
        return self._attached.is_gone

    @property
    def name(self) -> str:
        """Who carries."""
        return "userspace" if self._attached.is_gone else "kernel"

    @property
    def reason(self) -> str:
        """Where it works."""
        if self._attached.is_gone:
            return GONE
        kept = ", kept when this process ends" if self._attached.is_kept else ""
        names = ", ".join(self._attached.names) or "the devices of the process that lends it"
        return f"at {names}{kept}"

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to follow the machine's devices, routes and neighbours."""
        self._loop = loop
        loop.add_reader(self._news.sock, self._heard)
        self._later("keep", KEEP, self._keep)

    def inherited(self) -> list[tuple[FiveTuple, Address]]:
        """Clients and peers between whom indications go by the kernel since before this process."""
        return self._inherited.named()

    def restored(self) -> None:
        """Every route that an earlier process has left is written again: clean up the rest."""
        self._retired = self._retired.plus(self._inherited.clean())
        self._hops.free(self._inherited.hops)
        self._buckets.free(self._inherited.buckets)

    def stop(self) -> None:
        """Take everything out of the kernel again."""
        for route in list(self._offloads):
            self._drop(route)
        self._attached.close()
        self._end()

    def leave(self) -> None:
        """Let packets go on; another process will find them in the maps."""
        self._attached.leave()
        self._end()

    def _end(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._loop is not None:
            self._loop.remove_reader(self._news.sock)
        self._undo.close()

    # Routes ----------------------------------------------------------------------------------

    def added(self, route: Route) -> None:
        """Write a route, if the program can carry it and once it has proved worth it."""
        if not can_carry(route):
            return
        if is_worth(route) or (self._inherited and self._inherited.has(ways_of(route))):
            self._offload(route)
            return
        self._waiting[route] = None
        if "look" not in self._timers:
            self._later("look", LOOK, self._look)

    def _look(self) -> None:
        del self._timers["look"]
        waiting, written = self._waiting, 0
        for route in list(islice(waiting, max(LOOKED_AT, len(waiting) // 8))):
            del waiting[route]
            if not is_worth(route):
                waiting[route] = None  # behind those that are still to be looked at
                continue
            self._offload(route)
            written += 1
            if written == WRITTEN:
                break
        if waiting:
            self._later("look", SOON if written == WRITTEN else LOOK, self._look)

    def _offload(self, route: Route) -> None:
        limits = self._buckets.lend(route.sending, route.receiving)
        if limits is None:
            return
        client, server = route.client.client.host, route.client.server.host
        offload = self._offloads[route] = Offload(
            self._ways.of(6 if ":" in client else 4),
            self._hops.acquire(server, client),
            self._hops.acquire(route.relayed.host, route.wire_peer.host),
        )
        try:
            self._open_port(route.client.server.port)
            self._write_ways(route, offload, limits)
        except BpfError as error:
            self._drop(route)
            log.warning("user space carries a route", reason=error.strerror)

    def _write_ways(
        self, route: Route, offload: Offload, limits: Sequence[tuple[int, ...]]
    ) -> None:
        """Write a route's ways, or go on with them as they are. :raises BpfError: no place."""
        table, label = offload.table, b"" if route.channel else secrets.token_bytes(12)
        for index, way in enumerate(ways_of(route)):
            hops = offload.hops(index)
            place = self._inherited.take(way)
            if place is None:
                place = table.write(way, hops, route.expires, limits[index], label)
            else:
                table.lead(place, hops)
                table.limit(place, limits[index])
                table.move(place, route.expires)
            if place is None:
                raise BpfError(errno.ENOSPC, "its places among the kernel's routes are taken")
            offload.places.append(place)

    def refreshed(self, route: Route) -> None:
        """Move the end of a route: one store into shared memory a way."""
        offload = self._offloads.get(route)
        if offload is not None:
            for place in offload.places:
                offload.table.move(place, route.expires)

    def removed(self, route: Route) -> None:
        """Close a route; not one packet takes it from here on."""
        self._waiting.pop(route, None)
        if route in self._offloads:
            self._drop(route)

    def carried(self) -> Carried:
        """What went by this plane, in all."""
        total = self._retired
        for offload in self._offloads.values():
            total = total.plus(offload.carried)
        return total

    def carried_by(self, route: Route) -> Carried:
        """What went by this plane on one route."""
        offload = self._offloads.get(route)
        return offload.carried if offload is not None else NOTHING

    def dropped(self) -> Counter[DropReason]:
        """Packets that ended in the kernel, by why."""
        return self._buckets.refused() + Counter(
            {DropReason.SEND_FAILED: self.carried().spoiled_packets}
        )

    def _drop(self, route: Route) -> None:
        offload = self._offloads.pop(route)
        for place in offload.places:
            offload.table.free(place)
        self._retired = self._retired.plus(offload.carried)
        self._buckets.take_back(route.sending, route.receiving)
        self._hops.release(offload.client)
        self._hops.release(offload.peer)

    def _open_port(self, port: int) -> None:
        """Have the program look for channel numbers in packets to this port."""
        word, bit = divmod(port, PORTS_PER_WORD)
        known = self._ports.get(word, 0)
        if not known >> bit & 1:
            self._maps["ports"].update(INDEX.pack(word), WORD.pack(known | 1 << bit))
            self._ports[word] = known | 1 << bit

    # The machine -----------------------------------------------------------------------------

    def _heard(self) -> None:
        neighbours, other = self._news.read()
        self._hops.heard(neighbours)
        if other and "refresh" not in self._timers:
            self._later("refresh", SETTLE, self._refresh)

    def _refresh(self) -> None:
        del self._timers["refresh"]
        self._follow_devices()
        changed = set(self._hops.refresh())
        for offload in self._offloads.values():
            if changed and (offload.client in changed or offload.peer in changed):
                for index, place in enumerate(offload.places):
                    offload.table.lead(place, offload.hops(index))

    def _keep(self) -> None:
        self._hops.keep()
        self._later("keep", KEEP, self._keep)

    def _later(self, name: str, seconds: float, what: Callable[[], None]) -> None:
        if self._loop is not None:
            self._timers[name] = self._loop.call_later(seconds, what)

    def _follow_devices(self) -> None:
        links = self._netlink.links()
        self._hops.set_links(links, across(self._netlink, links) if self._hook != "tc" else ())
        self._attached.follow(links, self._netlink.addressed())

    def _write_hop(self, index: int, value: bytes) -> None:
        self._maps["hops"].update(INDEX.pack(index), value)


def can_carry(route: Route) -> bool:
    """Whether the program can carry a route."""
    return (
        route.client.transport is Transport.UDP
        and not isinstance(route.to_client, ThroughProxy)
        and (":" in route.client.client.host) == (":" in route.wire_peer.host)
    )


def is_worth(route: Route) -> bool:
    """Whether a route has had what makes it worth the kernel."""
    return route.sent + route.received >= WORTH * ONE_PACKET


def ways_of(route: Route) -> tuple[Way, Way]:
    """A route as the program carries it: from the client, from the peer."""
    _, client, server = route.client
    peer, relayed, channel = route.wire_peer, route.relayed, route.channel
    if channel:
        return (
            Way(client, server, relayed, peer, channel_in=channel),
            Way(peer, relayed, server, client, channel_out=channel),
        )
    return (
        Way(client, server, relayed, peer, named=route.peer),
        Way(peer, relayed, server, client, shown=route.peer),
    )
