"""Where allocations begin, move and end; whom they may exchange packets with is of ``peers``."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from turn.allocation.asking import NOBODY_TO_ASK, Asks
from turn.allocation.elsewhere import NOWHERE, Elsewhere
from turn.allocation.model import (
    RESERVATION_LIFETIME,
    Allocation,
    Limits,
    Owner,
    Relay,
    Relayed,
    RelayOpener,
)
from turn.allocation.options import NOTHING_MORE, Options
from turn.allocation.peers import AllocationGate, Peers
from turn.allocation.policy import PeerPolicy
from turn.allocation.record import NO_JOURNAL, Journal, can_be_kept
from turn.allocation.revocations import Revocations
from turn.allocation.table import AllocationTable, Reservation, place_of
from turn.bandwidth import Bandwidth, Pair
from turn.codec.errors import StunError
from turn.codec.values import FAMILY_NAMES, IPV4, Family, family_of
from turn.routes import ClientRoutes, Ends, FiveTuple, RouteTable, Send
from turn.stats import Stats
from turn.telling import Facts, Tell, to_nobody

TICKET_BYTES = 16
LINGER = 2.0
"""Seconds that what a client has sent from where it was before is still let in: it goes on sending
there until it hears that it has moved (RFC 8016 §3.2.2)."""


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
    """Its client goes on with it at another worker, or in the next process."""


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
    asks: Asks = NOBODY_TO_ASK


class Allocator:
    """Creates, extends and ends what clients have, and keeps the routes in step with it."""

    def __init__(self, parts: Parts) -> None:
        self.table = parts.table
        self.peers = Peers(
            parts.policy,
            parts.table,
            parts.routes,
            parts.limits,
            parts.stats,
            parts.random_bytes,
        )
        self.opener = parts.opener
        self._routes = parts.routes
        self._limits = parts.limits
        self._bandwidth = Bandwidth(parts.limits.rates, self.table.books.budgets)
        self._stats = parts.stats
        self._random_bytes = parts.random_bytes
        self._tell = parts.tell
        self.options = parts.options
        self.elsewhere = parts.elsewhere
        self.revocations = Revocations()
        self.tenant_of: Callable[[str], str] = lambda _: ""
        """Whose a username is by the settings; "": no tenant's."""
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
            place = place_of(client)
            sending, receiving = self._bandwidth.of(owner.user, place, now, owner.tenant)
        allocation = Allocation(client, owner, self._routes.open(client), now)
        gate = AllocationGate(self.peers, allocation)
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
        self.peers.extended(allocation)
        self.table.schedule(allocation, expires)

    def close(self, allocation: Allocation, reason: CloseReason) -> None:
        """End an allocation and everything of it; the five-tuple and the port are free again."""
        self.journal.drop(allocation)
        self.peers.connections.close_all(allocation)
        self._routes.close(allocation.client, allocation.routes)
        self.table.remove(allocation)
        self._by_ticket.pop(allocation.ticket, None)
        for relayed in allocation.relayed.values():
            self._release(relayed.relay)
        self._ended(allocation, reason)

    def hand_over(self, allocation: Allocation) -> None:
        """Let go of an allocation whose relayed addresses another worker goes on with."""
        self.journal.drop(allocation)
        self._routes.close(allocation.client, allocation.routes)
        self.table.remove(allocation, handed_over=True)
        self._by_ticket.pop(allocation.ticket, None)
        self._ended(allocation, CloseReason.MOVED)

    def _ended(self, allocation: Allocation, reason: CloseReason) -> None:
        self._stats.allocations_closed[reason] += 1
        if allocation.owner.tenant:
            carried = allocation.routes.carried
            self._stats.tenant_bytes.add(
                allocation.owner.tenant, carried.sent_bytes, carried.received_bytes
            )
        self._tell("allocation_closed", partial(_how_it_ended, allocation, reason))

    def leave(self, allocation: Allocation) -> None:
        """Close the relayed addresses of what the next process goes on with, if it can.

        What the kernel counts it goes on counting there.
        """
        kept = can_be_kept(allocation)
        self._routes.count_left(allocation.routes)
        reason = CloseReason.MOVED if kept else CloseReason.SHUTDOWN
        self._tell("allocation_closed", partial(_how_it_ended, allocation, reason))
        for relayed in allocation.relayed.values():
            relayed.relay.close()

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
        self.peers.end_family(allocation, family)
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
            owner = allocation.owner
            budgets = self._bandwidth.of(owner.user, place_of(client), now, owner.tenant)
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

    def reload(self, limits: Limits, options: Options) -> None:
        """Go on with other limits, and end what the policy refuses now."""
        self.options = options
        if limits.rates != self._limits.rates:
            self._bandwidth = Bandwidth(limits.rates, self.table.books.budgets)
        self._limits = limits
        self.end_denied()
        self.peers.reload(limits)

    def end_denied(self) -> None:
        """End what clients have that are kept out now."""
        clients = self.options.clients
        if clients is None:
            return
        for allocation in self.table:
            if not clients.admits(allocation.client.client.host):
                self.close(allocation, CloseReason.OPERATOR)
        self.peers.connections.close_where(
            lambda connection: connection.claimed and not clients.admits(connection.host)
        )

    def is_misnamed(self, owner: Owner) -> bool:
        """Whether a user's tenant is no more, or the name is a tenant's only now.

        Whoever signs such a name from now on is somebody else.
        """
        return self.tenant_of(owner.username) != owner.tenant

    def check_still(self, owner: Owner, wall: float) -> None:
        """See that a user may still have what had to be waited for.

        What was under way from one worker to another, neither of them could end.

        :raises StunError: 403, an operator has revoked it since, or changed whose it is.
        """
        self.revocations.check(owner.username, owner.user, wall)
        if self.is_misnamed(owner):
            raise StunError(403, why="the settings of turn.tenants say now that it is another user")

    def end_of(self, is_meant: Callable[[Owner], bool]) -> int:
        """End what users have that may not use the relay any more.

        :returns: how many allocations that were.
        """
        meant = [allocation for allocation in self.table if is_meant(allocation.owner)]
        for allocation in meant:
            self.close(allocation, CloseReason.REVOKED)
        for relay in self.table.unreserve(lambda held: is_meant(held.owner)):
            relay.close()
        return len(meant)

    def forget(self, now: float) -> None:
        """Let go of what was kept for users that are gone, and of connections nobody claims.

        And of where clients were before they moved.
        """
        self.peers.connections.expire(now)
        for routes in [routes for routes, until in self._moved.items() if until <= now]:
            del self._moved[routes]
            self._routes.leave(routes)
        self._bandwidth.forget(self.table.books.has, now)

    def expire_parts(self, allocation: Allocation, now: float) -> None:
        """End what of a live allocation has had its time."""
        for family in [f for f, relayed in allocation.relayed.items() if relayed.expires <= now]:
            self.close_family(allocation, family, CloseReason.EXPIRED)
        self.peers.expire(allocation, now)
        self.table.schedule(allocation)


def _is_translated(client: FiveTuple, family: Family) -> bool:
    """Whether DONT-FRAGMENT is to be ignored: in a translation of packets (RFC 8656 §13, §14, §15).

    It counts from IPv4 to IPv4 and from TCP.
    """
    is_ipv4 = family is IPV4 and family_of(client.client) is IPV4
    return not is_ipv4 and not client.transport.is_stream


def _how_it_ended(allocation: Allocation, reason: CloseReason) -> Facts:
    carried = allocation.routes.carried._asdict()
    del carried["spoiled_packets"]  # no one's traffic
    return {**allocation.facts(), "reason": reason, "since": allocation.since, **carried}
