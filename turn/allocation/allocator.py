"""Every change to an allocation, its permissions, its channels and its routes happens here."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from turn.allocation.connections import Connection, Connections, PeerStream
from turn.allocation.elsewhere import NOWHERE, Elsewhere
from turn.allocation.model import (
    CHANNEL_LIFETIME,
    PERMISSION_LIFETIME,
    RESERVATION_LIFETIME,
    Allocation,
    Channel,
    Limits,
    Owner,
    Relay,
    Relayed,
    RelayOpener,
)
from turn.allocation.options import NOTHING_MORE, Options
from turn.allocation.policy import PeerPolicy
from turn.allocation.record import NO_JOURNAL, Journal
from turn.allocation.revocations import Revocations
from turn.allocation.table import AllocationTable, Reservation, place_of
from turn.bandwidth import Bandwidth, Pair
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import build
from turn.codec.registry import Attributes, MessageClass, Method
from turn.codec.values import FAMILY_NAMES, IPV4, IPV6, Address, Family, Icmp, family_of
from turn.routes import ClientRoutes, Ends, FiveTuple, Route, RouteTable, Send
from turn.stats import DropReason, Stats
from turn.telling import Facts, Tell, to_nobody

TICKET_BYTES = 16
LINGER = 2.0
"""Seconds that what a client has sent from where it was before is still let in: it goes on sending
there until it hears that it has moved (RFC 8016 §3.2.2)."""
MOST_INDICATION_ROUTES = 128
"""Routes without a channel that an allocation keeps; a further peer takes the place of the
oldest, which gets a new route with its next packet."""


class CloseReason(StrEnum):
    """Why an allocation ended."""

    RELEASED = "released"
    EXPIRED = "expired"
    DISCONNECTED = "disconnected"
    SHUTDOWN = "shutdown"
    OPERATOR = "operator"
    """By hand."""
    REVOKED = "revoked"
    """Its user may not use the relay any more."""
    MOVED = "moved"
    """Its client goes on with it at another worker."""


class Parts(NamedTuple):
    """What an allocator works on."""

    policy: PeerPolicy
    table: AllocationTable
    routes: RouteTable
    opener: RelayOpener
    limits: Limits
    stats: Stats
    random_bytes: Callable[[int], bytes]
    options: Options = NOTHING_MORE
    elsewhere: Elsewhere = NOWHERE
    journal: Journal = NO_JOURNAL
    tell: Tell = to_nobody


class Allocator:
    """Creates, extends and ends what clients have, and keeps the routes in step with it."""

    def __init__(self, parts: Parts) -> None:
        self.policy = parts.policy
        self.table = parts.table
        self.opener = parts.opener
        self._routes = parts.routes
        self._limits = parts.limits
        self._bandwidth = Bandwidth(parts.limits.rates, self.table.books.budgets)
        self._stats = parts.stats
        self._random_bytes = parts.random_bytes
        self._tell = parts.tell
        self.connections = Connections(parts.random_bytes)
        self.options = parts.options
        self.elsewhere = parts.elsewhere
        self.revocations = Revocations()
        self.journal = parts.journal
        self._by_ticket: dict[bytes, Allocation] = {}
        self._moved: dict[ClientRoutes, float] = {}
        """Until when packets are let in from where their clients were."""

    # Allocations ---------------------------------------------------------------------------

    def create(
        self, client: FiveTuple, owner: Owner, relays: Sequence[Relay], send: Send, now: float
    ) -> Allocation:
        """Begin an allocation whose quota was checked; ``extend`` gives it its lifetime.

        :param relays: at most one of each family.
        """
        sending = receiving = None
        if not self._bandwidth.is_unlimited:
            sending, receiving = self._bandwidth.of(owner.user, place_of(client), now)
        allocation = Allocation(client, owner, self._routes.open(client), now)
        gate = AllocationGate(self, allocation)
        for relay in relays:
            family = family_of(relay.address)
            ends = Ends(
                client,
                relay.address,
                send,
                relay.send,
                relay.send if _is_translated(client, family) else relay.send_unfragmented,
                sending,
                receiving,
            )
            allocation.relayed[family] = Relayed(relay, ends, now)
            allocation.is_tcp = relay.is_tcp
            self._stats.allocations_created[client.transport, FAMILY_NAMES[family]] += 1
        self.table.insert(allocation)
        for relay in relays:
            relay.start(allocation.routes, gate)
        self._tell("allocation_created", allocation.facts)
        return allocation

    def grant(self, wanted: float) -> float:
        """The lifetime that a client gets for the one it asks for (RFC 8656 §7.2)."""
        return min(wanted, self._limits.lifetime)

    def extend(self, allocation: Allocation, expires: float, family: Family | None = None) -> None:
        """Move an allocation's end, and with it the end of routes that would outlive it.

        :param family: of this relayed address alone.
        """
        for each, relayed in allocation.relayed.items():
            if family is None or family == each:
                relayed.expires = expires
        if allocation.routes.peers:
            for route in set(allocation.routes.peers.values()):
                self._routes.refresh(route, self._route_expiry(allocation, route))
        self.table.schedule(allocation, expires)

    def close(self, allocation: Allocation, reason: CloseReason) -> None:
        """End an allocation and everything of it; the five-tuple and the port are free again."""
        self.journal.drop(allocation)
        self.connections.close_all(allocation)
        self._routes.close(allocation.client, allocation.routes)
        self.table.remove(allocation)
        self._by_ticket.pop(allocation.ticket, None)
        for relayed in allocation.relayed.values():
            self._release(relayed.relay)
        self._stats.allocations_closed[reason] += 1
        self._tell("allocation_closed", partial(_how_it_ended, allocation, reason))

    def hand_over(self, allocation: Allocation) -> None:
        """Let go of an allocation whose relayed addresses another worker goes on with."""
        self.journal.drop(allocation)
        self._routes.close(allocation.client, allocation.routes)
        self.table.remove(allocation, handed_over=True)
        self._by_ticket.pop(allocation.ticket, None)
        self._stats.allocations_closed[CloseReason.MOVED] += 1
        self._tell("allocation_closed", partial(_how_it_ended, allocation, CloseReason.MOVED))

    def give_up(self, relays: Sequence[Relay]) -> None:
        """Close what another worker has handed over, where it can be used for nothing."""
        for relay in relays:
            # Those who were told that it is live have to hear that it is not.
            self.table.books.opened(relay.address)
            self.table.books.closed(relay.address)
            self._release(relay)

    def close_family(self, allocation: Allocation, family: Family, reason: CloseReason) -> None:
        """End one relayed address of an allocation, and all of it where it was the last one."""
        if set(allocation.relayed) == {family}:
            self.close(allocation, reason)
            return
        for route in set(allocation.routes.peers.values()):
            if family_of(route.peer) == family:
                self._routes.remove(allocation.routes, route)
        for number, channel in list(allocation.channels.items()):
            if family_of(channel.peer) == family:
                del allocation.channels[number]
        for host in list(allocation.permissions):
            if (":" in host) == (family is IPV6):
                del allocation.permissions[host]
        relay = allocation.relayed.pop(family).relay
        self.table.remove_relayed(allocation, relay)
        self._release(relay)

    def _release(self, relay: Relay) -> None:
        # Other allocations of ours must not go on sending to a port that someone else may get.
        self._routes.remove_to(relay.address)
        relay.close()

    def reserve(self, relay: Relay, owner: Owner, now: float) -> bytes:
        """Hold a port for a while; gives the token that it is had for (RFC 8656 §7.2)."""
        token = self._random_bytes(8)
        self.table.reserve(token, Reservation(relay, owner, now + RESERVATION_LIFETIME))
        return token

    # Mobility (RFC 8016) -------------------------------------------------------------------

    def issue_ticket(self, allocation: Allocation) -> bytes:
        """A new ticket for an allocation; the one before is void.

        It is text, because coturn's client keeps no more of it than up to a zero.
        """
        self._by_ticket.pop(allocation.ticket, None)
        self.restore_ticket(allocation, self._random_bytes(TICKET_BYTES).hex().encode())
        return allocation.ticket

    def restore_ticket(self, allocation: Allocation, ticket: bytes) -> None:
        """Let a ticket stand for an allocation."""
        allocation.ticket = ticket
        self._by_ticket[ticket] = allocation

    def of_ticket(self, ticket: bytes) -> Allocation | None:
        """The allocation that a ticket stands for."""
        return self._by_ticket.get(ticket)

    def move(self, allocation: Allocation, client: FiveTuple, send: Send, now: float) -> None:
        """Go on with an allocation at another five-tuple, which has none.

        :raises StunError: 486, the new address has its share.
        """
        previous = allocation.client
        self.table.move(allocation, client)
        budgets = allocation.budgets
        if place_of(previous) != place_of(client) and self._bandwidth.is_by_address:
            budgets = self._bandwidth.of(allocation.owner.user, place_of(client), now)
        self._reach(allocation, previous, send, budgets)
        self._moved[allocation.routes] = now + LINGER

    def disconnected(self, client: FiveTuple) -> None:
        """A client's connection is gone: the next one from there proves nothing by that."""
        self._routes.cut(client)

    def reroute(self, allocation: Allocation, send: Send) -> None:
        """Reach a client in another way from now on, at the five-tuple that it has."""
        self._reach(allocation, allocation.client, send, allocation.budgets)

    def _reach(
        self, allocation: Allocation, previous: FiveTuple, send: Send, budgets: Pair
    ) -> None:
        client, (sending, receiving) = allocation.client, budgets
        for relayed in allocation.relayed.values():
            relayed.ends = relayed.ends._replace(
                client=client, to_client=send, sending=sending, receiving=receiving
            )
        self._routes.move(previous, allocation.routes, relayed.ends)

    # Permissions and channels --------------------------------------------------------------

    def check_room(self, allocation: Allocation, hosts: Collection[str]) -> None:
        """See that there is room for permissions for all of these hosts. :raises StunError: 508."""
        have, most = allocation.permissions, self._limits.permissions
        if len(have) + len(hosts) > most and len(have.keys() | hosts) > most:
            raise self.table.exceeded("permissions", 508)

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
                    self._routes.refresh(route, self._route_expiry(allocation, route))
        self.table.schedule(allocation, now + PERMISSION_LIFETIME)

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
                raise self.table.exceeded("channels", 508)
        elif channel.peer != peer:
            raise StunError(400)
        self.permit(allocation, {peer.host}, now)
        allocation.channels[number] = Channel(peer, now + CHANNEL_LIFETIME)
        route = allocation.routes.channels.get(number)
        if route is not None:
            self._routes.refresh(route, self._route_expiry(allocation, route))
        else:
            self.open_channel(allocation, number, peer)
        self.table.schedule(allocation, now + CHANNEL_LIFETIME)

    def open_channel(self, allocation: Allocation, number: int, peer: Address) -> None:
        """Write the route of a channel that is bound."""
        ends = allocation.relayed[family_of(peer)].ends
        route = Route(ends, peer, self.policy.to_wire(peer), number, 0.0)
        route.expires = self._route_expiry(allocation, route)
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

    def reload(self, limits: Limits, options: Options) -> None:
        """Go on with other limits, and end what the policy refuses now."""
        self.options = options
        if limits.rates != self._limits.rates:
            self._bandwidth = Bandwidth(limits.rates, self.table.books.budgets)
        self._limits = limits
        self.end_denied()
        for allocation in self.table:
            self._end_refused(allocation)
        self.connections.close_where(lambda it: not self.policy.allows_connection(it.peer))

    def end_denied(self) -> None:
        """End what clients have that are kept out now."""
        clients = self.options.clients
        if clients is None:
            return
        for allocation in self.table:
            if not clients.admits(allocation.client.client.host):
                self.close(allocation, CloseReason.OPERATOR)
        self.connections.close_where(
            lambda connection: connection.claimed and not clients.admits(connection.host)
        )

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

    def begin_connection(self, allocation: Allocation, peer: Address) -> Connection:
        """Make room for a connection. :raises StunError: 508, the allocation has its share."""
        if len(self.connections.of(allocation)) >= self._limits.channels:
            raise self.table.exceeded("connections", 508)
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

    def forget(self, now: float) -> None:
        """Let go of what was kept for users that are gone, and of connections nobody claims.

        And of where clients were before they moved.
        """
        self.connections.expire(now)
        for routes in [routes for routes, until in self._moved.items() if until <= now]:
            del self._moved[routes]
            self._routes.leave(routes)
        self._bandwidth.forget(self.table.books.has, now)

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

    def expire_parts(self, allocation: Allocation, now: float) -> None:
        """End what of a live allocation has had its time."""
        for family in [f for f, relayed in allocation.relayed.items() if relayed.expires <= now]:
            self.close_family(allocation, family, CloseReason.EXPIRED)
        for number in [n for n, c in allocation.channels.items() if c.expires <= now]:
            del allocation.channels[number]
        for host in [h for h, expires in allocation.permissions.items() if expires <= now]:
            del allocation.permissions[host]
        for route in set(allocation.routes.peers.values()):
            if route.expires <= now:
                self._routes.remove(allocation.routes, route)
        self.table.schedule(allocation)

    def _make_room(self, allocation: Allocation) -> None:
        routes = [route for route in allocation.routes.peers.values() if not route.channel]
        if len(routes) >= MOST_INDICATION_ROUTES:
            self._routes.remove(allocation.routes, routes[0])

    @staticmethod
    def _route_expiry(allocation: Allocation, route: Route) -> float:
        """When a route ends: with its channel or else its permission, or with the allocation.

        A live channel carries its own permission: deployed clients (aioice) refresh a channel
        after 500 s and never its permission of 300 s, and every other server lets them.
        """
        expires = allocation.relayed[family_of(route.peer)].expires
        if route.channel:
            return min(allocation.channels[route.channel].expires, expires)
        return min(allocation.permissions.get(route.peer.host, 0.0), expires)


def _is_translated(client: FiveTuple, family: Family) -> bool:
    """Whether DONT-FRAGMENT is to be ignored: in a translation of packets (RFC 8656 §13, §14, §15).

    It counts from IPv4 to IPv4 and from TCP.
    """
    is_ipv4 = family is IPV4 and family_of(client.client) is IPV4
    return not is_ipv4 and not client.transport.is_stream


def _how_it_ended(allocation: Allocation, reason: CloseReason) -> Facts:
    carried = allocation.routes.carried._asdict()
    return {**allocation.facts(), "reason": reason, **carried}


class AllocationGate:
    """An allocation as its relayed addresses see it (``Gate``)."""

    __slots__ = ("_allocation", "_allocator")

    def __init__(self, allocator: Allocator, allocation: Allocation) -> None:
        self._allocator = allocator
        self._allocation = allocation

    def admit(self, source: Address, now: float) -> Route | None:
        """A route for a packet from ``source``, an address as the network has it."""
        peer = self._allocator.policy.to_client(source)
        return self._allocator.admit(self._allocation, peer, now)

    def unreachable(self, peer: Address, icmp: Icmp, now: float) -> None:
        """A packet to ``peer``, an address as the network has it, drew an ICMP error."""
        peer = self._allocator.policy.to_client(peer)
        self._allocator.report_icmp(self._allocation, peer, icmp, now)

    def connected(self, peer: Address, stream: PeerStream, now: float) -> bool:
        """A peer, an address as the network has it, has connected; False: it is to be cut off."""
        peer = self._allocator.policy.to_client(peer)
        return self._allocator.accept(self._allocation, peer, stream, now)
