"""Routes: the seam between those who decide and those who carry.

A route says that one client and one peer may exchange packets until some time, and how. Only
``allocation/`` writes routes; data planes read them. A plane other than user space hears of each
route through a ``RouteObserver``.
"""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple, Protocol

from turn.bandwidth import Budgets
from turn.codec.values import Address, pack_host
from turn.stats import Stats

Endpoint = tuple[str, int]
"""An address as the socket module gives it; equal to the ``Address`` of the same host and port."""
NO_FLOW = bytes(4)
"""The flow label between an IPv6 address and its port (``struct sockaddr_in6``)."""
Buffer = bytes | bytearray | memoryview
Send = Callable[[Buffer, Address], object]
"""Sends one packet to an address, as ``socket.sendto`` does; a stream ignores the address.
Raises ``OSError`` where the kernel refuses the packet."""


class Transport(StrEnum):
    """How a client reaches the server."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"
    DTLS = "dtls"

    @property
    def is_stream(self) -> bool:
        """Whether it brings bytes in order, and the client's going ends its connection."""
        return self in STREAMS

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody on the way reads what passes."""
        return self in ENCRYPTED


STREAMS = frozenset({Transport.TCP, Transport.TLS})
ENCRYPTED = frozenset({Transport.TLS, Transport.DTLS})


class ThroughProxy:
    """Sends to a client by way of a proxy's port: no plane but user space can carry its packets."""

    __slots__ = ("_place", "_send")

    def __init__(self, send: Callable[[Buffer, Endpoint], object], place: Endpoint) -> None:
        self._send = send
        self._place = place

    def __call__(self, data: Buffer, _: Endpoint) -> object:
        """Send one packet. :raises OSError: the kernel refuses it."""
        return self._send(data, self._place)


class FiveTuple(NamedTuple):
    """A client's side of an allocation (RFC 8656 §2): its address, ours, and the protocol."""

    transport: Transport
    client: Address
    server: Address


ONE_PACKET = 1 << 64
"""What a packet adds to a route's count of a direction, beside its bytes: packets stand above this
bit, bytes below. With thousands of routes each object that a packet touches is far from the
processor, so one number is half the way of two."""


class Route:
    """One client, one peer: who they are, how each is reached, and what went through."""

    __slots__ = (
        "channel",
        "client",
        "destination",
        "expires",
        "header",
        "peer",
        "received",
        "receiving",
        "relayed",
        "sending",
        "sent",
        "source",
        "to_client",
        "to_peer",
        "to_peer_unfragmented",
        "wire_peer",
    )

    def __init__(
        self, ends: "Ends", peer: Address, wire_peer: Address, channel: int, expires: float
    ) -> None:
        self.client = ends.client
        self.destination = ends.client.client
        """Where packets to the client go: of ``client``, where it is far for each packet."""
        self.relayed = ends.relayed
        self.to_client = ends.to_client
        self.to_peer = ends.to_peer
        self.to_peer_unfragmented = ends.to_peer_unfragmented
        self.sending = ends.sending
        self.receiving = ends.receiving
        self.peer = peer
        """The peer as the client names it."""
        self.wire_peer = wire_peer
        """The peer as packets to it are addressed; another address only behind 1:1 NAT."""
        self.source = key_of(wire_peer)
        """The same as packets from it are known by."""
        self.channel = channel
        """The channel number, or 0: packets travel in Send and Data indications."""
        self.expires = expires
        """Monotonic time; not one packet passes from then on."""
        self.header = b""
        """What stands before the payload of a Data indication; the plane's to fill."""
        self.sent = self.received = 0
        """To the peer and from it, in user space: packets and bytes (``ONE_PACKET``)."""

    @property
    def carried(self) -> "Carried":
        """What went through, in user space."""
        return Carried(*divmod(self.sent, ONE_PACKET), *divmod(self.received, ONE_PACKET))


class Carried(NamedTuple):
    """What was relayed; bytes are payload."""

    sent_packets: int = 0
    """To the peer."""
    sent_bytes: int = 0
    received_packets: int = 0
    """From the peer."""
    received_bytes: int = 0
    spoiled_packets: int = 0
    """Lost half way: a function of the kernel's failed."""

    def plus(self, other: "Carried") -> "Carried":
        """Both together."""
        return Carried(*(one + another for one, another in zip(self, other, strict=True)))


NOTHING = Carried()


class Ends(NamedTuple):
    """What all routes of one allocated relay address have in common."""

    client: FiveTuple
    relayed: Address
    """The relayed transport address that packets to peers come from (ours, before any NAT)."""
    to_client: Send
    to_peer: Send
    to_peer_unfragmented: Send
    sending: Budgets | None
    receiving: Budgets | None


class ClientRoutes:
    """The routes of one allocation, as its packets look them up."""

    __slots__ = ("before", "carried", "channels", "client", "latest", "peers")

    def __init__(self, client: FiveTuple) -> None:
        self.client = client
        self.before: FiveTuple | None = None
        """Where the client was: its packets are let in from there too, for a moment."""
        self.carried = NOTHING
        """What went by those that have ended, by whichever plane."""
        self.channels: dict[int, Route] = {}
        """By channel number: from the client, ChannelData."""
        self.peers: dict[Endpoint, Route] = {}
        """By the peer's address: from the client, Send indications; from the peer, packets."""
        self.latest: Route | None = None
        """Of the last packet, and mostly of the next one: then nothing else has to be looked up."""


def key_of(source: Address) -> bytes:
    """What a packet's sender is known by: port and host, as the kernel writes them."""
    host = pack_host(source.host)
    return source.port.to_bytes(2) + (host if len(host) == 4 else NO_FLOW + host)


class RouteObserver(Protocol):
    """A data plane beside user space: told of every change, answering nothing."""

    def added(self, route: Route) -> None:
        """Packets may take this route from now on."""

    def refreshed(self, route: Route) -> None:
        """``route.expires`` has moved."""

    def removed(self, route: Route) -> None:
        """No packet may take this route any more; its counters are final after this call."""

    def carried_by(self, route: Route) -> Carried:
        """What went by this plane on a route that has not been removed."""


class RouteTable:
    """All routes of this process."""

    def __init__(self, stats: Stats, observers: Iterable[RouteObserver] = ()) -> None:
        self._stats = stats
        self._observers = list(observers)
        self._listeners: dict[tuple[Transport, Address], dict[bytes, ClientRoutes]] = {}
        self._to_peer: dict[Address, dict[Route, ClientRoutes]] = {}
        self._channels: dict[int, int] = {}

    def observe(self, observer: RouteObserver) -> None:
        """Tell an observer of every change from now on; to be called before there are routes."""
        self._observers.append(observer)

    def of_listener(self, transport: Transport, server: Address) -> dict[bytes, ClientRoutes]:
        """The clients of one of our addresses (``key_of``): a live view that a listener keeps."""
        return self._listeners.setdefault((transport, server), {})

    def of(self, client: FiveTuple) -> ClientRoutes | None:
        """The routes of one client; None: it has no allocation."""
        return self.of_listener(client.transport, client.server).get(key_of(client.client))

    def open(self, client: FiveTuple) -> ClientRoutes:
        """Make room for the routes of a new allocation."""
        routes = ClientRoutes(client)
        self.of_listener(client.transport, client.server)[key_of(client.client)] = routes
        return routes

    def close(self, client: FiveTuple, routes: ClientRoutes) -> None:
        """Remove every route of an allocation and its room."""
        for route in set(routes.channels.values()) | set(routes.peers.values()):
            self.remove(routes, route)
        self.leave(routes)
        self.cut(client)

    def move(self, before: FiveTuple, routes: ClientRoutes, ends: "Ends") -> None:
        """Let a client go on with its routes at another five-tuple.

        What it has sent from where it was is still let in, until ``leave``.

        :param ends: of any of its relayed addresses: who it is now, how it is reached, its budgets.
        """
        after = ends.client
        self.leave(routes)
        routes.before = before if self.of(before) is routes else None
        self.of_listener(after.transport, after.server)[key_of(after.client)] = routes
        routes.client = after
        for route in set(routes.channels.values()) | set(routes.peers.values()):
            for observer in self._observers:
                routes.carried = routes.carried.plus(observer.carried_by(route))
                observer.removed(route)
            route.client, route.destination, route.to_client = after, after.client, ends.to_client
            route.sending, route.receiving = ends.sending, ends.receiving
            for observer in self._observers:
                observer.added(route)

    def leave(self, routes: ClientRoutes) -> None:
        """Let nothing more in from where a client was before."""
        before, routes.before = routes.before, None
        if before is not None and before != routes.client and self.of(before) is routes:
            self.cut(before)

    def cut(self, client: FiveTuple) -> None:
        """Let nothing more in from there: whoever comes next may be somebody else."""
        self.of_listener(client.transport, client.server).pop(key_of(client.client), None)

    def add(self, routes: ClientRoutes, route: Route) -> None:
        """Let packets take a route. One that the peer had already gives way."""
        previous = routes.peers.get(route.wire_peer)
        if previous is not None:
            self.remove(routes, previous)
        same_peer = self._to_peer.setdefault(route.wire_peer, {})
        self._share(route, next(iter(same_peer)) if same_peer else route)
        routes.peers[route.peer] = routes.peers[route.wire_peer] = route
        if route.channel:
            routes.channels[route.channel] = route
        same_peer[route] = routes
        for observer in self._observers:
            observer.added(route)

    def refresh(self, route: Route, expires: float) -> None:
        """Move a route's end."""
        if route.expires != expires:
            route.expires = expires
            for observer in self._observers:
                observer.refreshed(route)

    def remove(self, routes: ClientRoutes, route: Route) -> None:
        """End a route now."""
        routes.carried = routes.carried.plus(self.carried_by(route))
        for observer in self._observers:
            observer.removed(route)
        if routes.latest is route:
            routes.latest = None
        if routes.channels.get(route.channel) is route:
            del routes.channels[route.channel]
        for peer in {route.peer, route.wire_peer}:
            if routes.peers.get(peer) is route:
                del routes.peers[peer]
        same_peer = self._to_peer[route.wire_peer]
        del same_peer[route]
        if not same_peer:
            del self._to_peer[route.wire_peer]
        route.expires = 0.0  # a reference that someone still holds carries nothing
        self._retire(route)

    def remove_to(self, peer: Address) -> None:
        """End every route to a peer: one of our own relayed addresses that was just released."""
        for route, routes in list(self._to_peer.get(peer, {}).items()):
            self.remove(routes, route)

    def all(self) -> Iterable[Route]:
        """Every live route."""
        for same_peer in self._to_peer.values():
            yield from same_peer

    def in_user_space(self) -> Carried:
        """What went through user space since the start."""
        stats = self._stats
        total = Carried(
            stats.sent_packets, stats.sent_bytes, stats.received_packets, stats.received_bytes
        )
        for route in self.all():
            total = total.plus(route.carried)
        return total

    def carried_by(self, route: Route) -> Carried:
        """What went by a live route, in user space and in other planes."""
        carried = route.carried
        for observer in self._observers:
            carried = carried.plus(observer.carried_by(route))
        return carried

    def count_left(self, routes: ClientRoutes) -> None:
        """Have ``routes.carried`` say what went through user space, where other planes go on."""
        for route in set(routes.peers.values()):
            routes.carried = routes.carried.plus(route.carried)

    def carried(self, routes: ClientRoutes) -> Carried:
        """What an allocation has relayed so far."""
        total = routes.carried
        for route in set(routes.peers.values()):
            total = total.plus(self.carried_by(route))
        return total

    def _share(self, route: Route, other: Route) -> None:
        """Have equal values of routes be the same objects: with thousands, fewer are far away.

        :param other: one that leads to the same peer, as all do that talk to one media server.
        """
        route.wire_peer, route.source = other.wire_peer, other.source
        route.channel = self._channels.setdefault(route.channel, route.channel)

    def _retire(self, route: Route) -> None:
        carried = route.carried
        self._stats.sent_packets += carried.sent_packets
        self._stats.sent_bytes += carried.sent_bytes
        self._stats.received_packets += carried.received_packets
        self._stats.received_bytes += carried.received_bytes
