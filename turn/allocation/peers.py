"""Whom an allocation may exchange packets with: permissions, channels, connections, and the routes
that follow from them.
"""

from collections.abc import Callable, Collection
from contextlib import suppress

from turn.allocation.connections import Connection, Connections, PeerStream
from turn.allocation.model import (
    CHANNEL_LIFETIME,
    PERMISSION_LIFETIME,
    Allocation,
    Channel,
    Limits,
)
from turn.allocation.policy import PeerPolicy
from turn.allocation.table import AllocationTable
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import build
from turn.codec.registry import Attributes, MessageClass, Method
from turn.codec.values import IPV6, Address, Family, Icmp, family_of
from turn.routes import Route, RouteTable
from turn.stats import DropReason, Stats

MOST_INDICATION_ROUTES = 128
"""Routes without a channel that an allocation keeps; a further peer takes the place of the
oldest, which gets a new route with its next packet."""


class Peers:
    """Gives allocations their peers, and takes them away; the routes are kept in step with it."""

    def __init__(
        self,
        policy: PeerPolicy,
        table: AllocationTable,
        routes: RouteTable,
        limits: Limits,
        stats: Stats,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.policy = policy
        self.connections = Connections(random_bytes)
        self._table = table
        self._routes = routes
        self._limits = limits
        self._stats = stats
        self._random_bytes = random_bytes

    # Permissions and channels --------------------------------------------------------------

    def check_room(self, allocation: Allocation, hosts: Collection[str]) -> None:
        """See that there is room for permissions for all of these hosts. :raises StunError: 508."""
        have, most = allocation.permissions, self._limits.permissions
        if len(have) + len(hosts) > most and len(have.keys() | hosts) > most:
            raise self._table.exceeded("permissions", 508)

    def permit(self, allocation: Allocation, hosts: Collection[str], now: float) -> None:
        """Install or refresh permissions for peer IP addresses: all of them, or none.

        :raises StunError: 508 where there would be too many (RFC 8656 §10.2).
        """
        self.check_room(allocation, hosts)
        for host in hosts:
            allocation.permissions[host] = now + PERMISSION_LIFETIME
        if allocation.routes.peers:
            for route in set(allocation.routes.peers.values()):
                if route.peer.host in hosts:
                    self._routes.refresh(route, _end_of(route, allocation))
        self._table.schedule(allocation, now + PERMISSION_LIFETIME)

    def bind(self, allocation: Allocation, number: int, peer: Address, now: float) -> None:
        """Bind a channel to a peer, or refresh the binding; the permission comes with it.

        :raises StunError: 400 where number or peer is bound otherwise; 508 over the limit.
        """
        channel = allocation.channels.get(number)
        if channel is None:
            bound = allocation.channels
            if bound and any(other.peer == peer for other in bound.values()):
                raise StunError(400)
            if len(bound) >= self._limits.channels:
                raise self._table.exceeded("channels", 508)
        elif channel.peer != peer:
            raise StunError(400)
        self.permit(allocation, {peer.host}, now)
        allocation.channels[number] = Channel(peer, now + CHANNEL_LIFETIME)
        route = allocation.routes.channels.get(number)
        if route is not None:
            self._routes.refresh(route, _end_of(route, allocation))
        else:
            self.open_channel(allocation, number, peer)
        self._table.schedule(allocation, now + CHANNEL_LIFETIME)

    def open_channel(self, allocation: Allocation, number: int, peer: Address) -> None:
        """Write the route of a channel that is bound."""
        ends = allocation.relayed[family_of(peer)].ends
        route = Route(ends, peer, self.policy.to_wire(peer), number, 0.0)
        route.expires = _end_of(route, allocation)
        self._routes.add(allocation.routes, route)

    def admit(self, allocation: Allocation, peer: Address, now: float) -> Route | None:
        """A route without a channel for a peer whose permission lives; None: dropped, counted."""
        relayed = allocation.relayed.get(family_of(peer))
        permitted = allocation.permissions.get(peer.host, 0.0)
        if relayed is None or min(permitted, relayed.expires) <= now or allocation.is_tcp:
            self._stats.drop(DropReason.NO_PERMISSION)
            return None
        if not self.policy.allows(peer):
            self._stats.drop(DropReason.REFUSED_PEER)
            return None
        self._make_room(allocation)
        expires = min(permitted, relayed.expires)
        route = Route(relayed.ends, peer, self.policy.to_wire(peer), 0, expires)
        self._routes.add(allocation.routes, route)
        return route

    def _make_room(self, allocation: Allocation) -> None:
        routes = [route for route in allocation.routes.peers.values() if not route.channel]
        if len(routes) >= MOST_INDICATION_ROUTES:
            self._routes.remove(allocation.routes, routes[0])

    # Connections (RFC 6062) ----------------------------------------------------------------

    def begin_connection(self, allocation: Allocation, peer: Address) -> Connection:
        """Make room for a connection. :raises StunError: 508, the allocation has its share."""
        if len(self.connections.of(allocation)) >= self._limits.channels:
            raise self._table.exceeded("connections", 508)
        return self.connections.begin(allocation, peer)

    def accept(self, allocation: Allocation, peer: Address, stream: PeerStream, now: float) -> bool:
        """Tell the client of a peer that has connected (RFC 6062 §5.3); False: it may not."""
        if allocation.permissions.get(peer.host, 0.0) <= now:
            self._stats.drop(DropReason.NO_PERMISSION)
            return False
        if peer in self.connections.of(allocation):
            return False
        try:
            connection = self.begin_connection(allocation, peer)
        except StunError:
            return False
        self.connections.open(connection, stream, now)
        attempt = (
            (registry.CONNECTION_ID, connection.number),
            (registry.XOR_PEER_ADDRESS, peer),
        )
        self._indicate(allocation, Method.CONNECTION_ATTEMPT, attempt)
        return True

    # What ends, and errors -----------------------------------------------------------------

    def extended(self, allocation: Allocation) -> None:
        """An allocation has another end: so have the routes that would outlive it."""
        if allocation.routes.peers:
            for route in set(allocation.routes.peers.values()):
                self._routes.refresh(route, _end_of(route, allocation))

    def expire(self, allocation: Allocation, now: float) -> None:
        """End what has had its time."""
        for number in [n for n, c in allocation.channels.items() if c.expires <= now]:
            del allocation.channels[number]
        for host in [h for h, expires in allocation.permissions.items() if expires <= now]:
            del allocation.permissions[host]
        for route in set(allocation.routes.peers.values()):
            if route.expires <= now:
                self._routes.remove(allocation.routes, route)

    def end_family(self, allocation: Allocation, family: Family) -> None:
        """End what an allocation has with the peers of one address family."""
        for route in set(allocation.routes.peers.values()):
            if family_of(route.peer) == family:
                self._routes.remove(allocation.routes, route)
        for number, channel in list(allocation.channels.items()):
            if family_of(channel.peer) == family:
                del allocation.channels[number]
        for host in list(allocation.permissions):
            if (":" in host) == (family is IPV6):
                del allocation.permissions[host]

    def reload(self, limits: Limits) -> None:
        """Go on with other limits, and end what the policy refuses now."""
        self._limits = limits
        for allocation in self._table:
            self._end_refused(allocation)
        self.connections.close_where(lambda it: not self.policy.allows_connection(it.peer))

    def _end_refused(self, allocation: Allocation) -> None:
        for number, channel in list(allocation.channels.items()):
            if not self.policy.allows(channel.peer):
                del allocation.channels[number]
        for host in list(allocation.permissions):
            if not self.policy.allows_host(host):
                del allocation.permissions[host]
        for route in set(allocation.routes.peers.values()):
            if not self.policy.allows(route.peer):
                self._routes.remove(allocation.routes, route)

    def report_icmp(self, allocation: Allocation, peer: Address, icmp: Icmp, now: float) -> None:
        """Tell the client of an ICMP error, if it may hear of that peer (RFC 8656 §11.5)."""
        relayed = allocation.relayed.get(family_of(peer))
        if relayed is None or allocation.permissions.get(peer.host, 0.0) <= now:
            return
        told = ((registry.XOR_PEER_ADDRESS, peer), (registry.ICMP, icmp))
        self._indicate(allocation, Method.DATA, told)

    def _indicate(self, allocation: Allocation, method: Method, attributes: Attributes) -> None:
        data = build(method, MessageClass.INDICATION, self._random_bytes(12), attributes)
        to_client = next(iter(allocation.relayed.values())).ends.to_client
        with suppress(OSError):  # as with any packet that does not get through
            to_client(data, allocation.client.client)


def _end_of(route: Route, allocation: Allocation) -> float:
    """When a route ends: with its channel or else its permission, or with the allocation.

    A live channel carries its own permission: deployed clients (aioice) refresh a channel
    after 500 s and never its permission of 300 s, and every other server lets them.
    """
    expires = allocation.relayed[family_of(route.peer)].expires
    if route.channel:
        return min(allocation.channels[route.channel].expires, expires)
    return min(allocation.permissions.get(route.peer.host, 0.0), expires)


class AllocationGate:
    """An allocation as its relayed addresses see it (``Gate``)."""

    __slots__ = ("_allocation", "_peers")

    def __init__(self, peers: Peers, allocation: Allocation) -> None:
        self._peers = peers
        self._allocation = allocation

    def admit(self, source: Address, now: float) -> Route | None:
        """A route for a packet from ``source``, an address as the network has it."""
        peer = self._peers.policy.to_client(source)
        return self._peers.admit(self._allocation, peer, now)

    def unreachable(self, peer: Address, icmp: Icmp, now: float) -> None:
        """A packet to ``peer``, an address as the network has it, drew an ICMP error."""
        peer = self._peers.policy.to_client(peer)
        self._peers.report_icmp(self._allocation, peer, icmp, now)

    def connected(self, peer: Address, stream: PeerStream, now: float) -> bool:
        """A peer, an address as the network has it, has connected; False: it is to be cut off."""
        peer = self._peers.policy.to_client(peer)
        return self._peers.accept(self._allocation, peer, stream, now)
