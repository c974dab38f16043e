"""All allocations, and the books that must balance: quotas, reservations, expiry."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import NamedTuple

from turn.allocation.books import Books, Most, OwnBooks
from turn.allocation.model import (
    PERMISSION_LIFETIME,
    Allocation,
    Limits,
    Owner,
    Relay,
    TenantLimits,
)
from turn.bandwidth import ALL, Key
from turn.codec.errors import StunError
from turn.codec.values import Address
from turn.routes import FiveTuple
from turn.stats import Stats

QUOTAS = {
    "user": "the user has turn.max_allocations_per_user, or what its tenant gives",
    "tenant": "the tenant's users have max_allocations of turn.tenants",
    "address": "the client's address has turn.max_allocations_per_address",
    "total": "the relay has turn.max_allocations",
    "ports": "no port of turn.relay_ports is free",
    "permissions": "the allocation has turn.max_permissions",
    "channels": "the allocation has turn.max_channels",
    "connections": "the allocation has turn.max_channels connections",
}
"""What is full, by the name that it is counted under."""


class Reservation(NamedTuple):
    """A port held for whoever shows its token (RFC 8656 §7.2)."""

    relay: Relay
    owner: Owner
    expires: float


class AllocationTable:
    """Finds allocations by client and by relayed address; counts them against the quotas."""

    def __init__(
        self,
        limits: Limits,
        stats: Stats,
        books: Books | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.set_limits(limits)
        self._stats = stats
        self.books = books or OwnBooks()
        self._aside: dict[Key, int] = {}
        self._by_client: dict[FiveTuple, Allocation] = {}
        self._by_relayed: dict[Address, Allocation] = {}
        self._by_tcp_relayed: dict[Address, Allocation] = {}
        self._reservations: dict[bytes, Reservation] = {}
        self._due: list[tuple[float, int, Allocation]] = []
        self._serial = 0
        self._numbers = numbers or itertools.count(1)

    def __len__(self) -> int:
        return len(self._by_client)

    def __iter__(self) -> Iterator[Allocation]:
        return iter(list(self._by_client.values()))

    def get(self, client: FiveTuple) -> Allocation | None:
        """The allocation of a five-tuple."""
        return self._by_client.get(client)

    def is_live_relay(self, address: Address) -> bool:
        """Whether one of our allocations relays from this transport address."""
        return address in self._by_relayed or self.books.is_live(address)

    def is_live_tcp_relay(self, address: Address) -> bool:
        """The same for TCP allocations (RFC 6062)."""
        return address in self._by_tcp_relayed or self.books.is_live(address, is_tcp=True)

    def set_limits(self, limits: Limits) -> None:
        """Hold new allocations to these from now on."""
        every = {
            "user": limits.allocations_per_user,
            "address": limits.allocations_per_address,
            "total": limits.allocations,
        }
        self._most: Most = {kind: most for kind, most in every.items() if most}
        self._most_of = {name: _most_in(each, every) for name, each in limits.tenants.items()}

    def check_quota(self, client: FiveTuple, owner: Owner, shares: int = 1) -> None:
        """Set aside what one more allocation takes, until ``settle``.

        :param shares: relayed addresses that it takes, one that it reserves with them.
        :raises StunError: 486 (Allocation Quota Reached) or 508 (Insufficient Capacity).
        """
        amounts = {("user", owner.user): shares, place_of(client): shares, ALL: 1}
        if not owner.tenant:
            self._set_aside(amounts, self._most)
            return
        amounts["tenant", owner.tenant] = shares
        self._set_aside(amounts, self._most_of.get(owner.tenant, self._most))

    def check_claim(self, client: FiveTuple) -> None:
        """The same for a reserved port, whose share of the user's was taken with it.

        Its client may come from another address than the one that it was reserved from.
        """
        self._set_aside({place_of(client): 1, ALL: 1}, self._most)

    def _set_aside(self, amounts: dict[Key, int], most: Most) -> None:
        over = self.books.take(amounts, most)
        if over:
            raise self.exceeded(over, 508 if over == "total" else 486)
        if self._aside:
            amounts = dict(Counter(self._aside) + Counter(amounts))
        self._aside = amounts

    def settle(self) -> None:
        """Give back what was set aside for a request and not used by it."""
        if self._aside:
            self.books.give(self._aside)
            self._aside = {}

    def _count(self, amounts: Mapping[Key, int]) -> None:
        """Count in: of what was set aside, or else whatever the limit is."""
        if amounts == self._aside:  # as it mostly is
            self._aside = {}
            return
        for key, amount in amounts.items():
            left = self._aside.pop(key, 0) - amount
            if left > 0:
                self._aside[key] = left
            elif left < 0:
                self.books.take({key: -left})

    def exceeded(self, quota: str, code: int) -> StunError:
        """Count a refusal, and give the error that tells of it."""
        self._stats.quota_rejections[quota] += 1
        return StunError(code, why=QUOTAS[quota])

    def insert(self, allocation: Allocation) -> None:
        """Take in a new allocation whose quota was checked, and give it its number.

        It is looked at first when a permission that it is given now would end: sooner than it
        ends itself, mostly, and one entry in the schedule does for both.
        """
        allocation.number = next(self._numbers)
        self._by_client[allocation.client] = allocation
        amounts = shares_of(allocation, len(allocation.relayed))
        amounts[ALL] = 1
        self._count(amounts)
        index = self._index(allocation)
        for relayed in allocation.relayed.values():
            index[relayed.relay.address] = allocation
            self.books.opened(relayed.relay.address, is_tcp=allocation.is_tcp)
        self.schedule(allocation, allocation.created + PERMISSION_LIFETIME)

    def remove(self, allocation: Allocation, *, handed_over: bool = False) -> None:
        """Give back everything that ``insert`` took.

        :param handed_over: another worker goes on with it.
        """
        del self._by_client[allocation.client]
        for relayed in allocation.relayed.values():
            self._unindex(allocation, relayed.relay, handed_over=handed_over)
        self.books.give({ALL: 1} | shares_of(allocation, len(allocation.relayed)))
        allocation.due = 0.0
        if len(self._due) > 2 * len(self._by_client) + 64:  # mostly those that are gone
            self._due = [entry for entry in self._due if entry[0] == entry[2].due]
            heapq.heapify(self._due)

    def remove_relayed(self, allocation: Allocation, relay: Relay) -> None:
        """Give back what one relayed address of an allocation took."""
        self._unindex(allocation, relay)
        self.books.give(shares_of(allocation, 1))

    def _unindex(self, allocation: Allocation, relay: Relay, *, handed_over: bool = False) -> None:
        del self._index(allocation)[relay.address]
        if handed_over:
            self.books.handed_over(relay.address)
        else:
            self.books.closed(relay.address, is_tcp=allocation.is_tcp)

    def make_room(self, allocation: Allocation, host: str) -> Mapping[Key, int]:
        """Count an allocation at its client's other address, before it is anywhere there.

        :returns: what is to be given back once it is.
        :raises StunError: 486, the new address has its share.
        """
        before, after = place_of(allocation.client), ("address", address_quota_key(host))
        shares = len(allocation.relayed)
        if before == after:
            return {}
        if self.books.take({after: shares}, self._most):
            raise self.exceeded("address", 486)
        return {after: shares}

    def move(self, allocation: Allocation, client: FiveTuple) -> None:
        """Find an allocation at another five-tuple from now on.

        :raises StunError: 486, the new address has its share.
        """
        before, after = place_of(allocation.client), place_of(client)
        shares = len(allocation.relayed)
        if before != after:
            if self.books.take({after: shares}, self._most):
                raise self.exceeded("address", 486)
            self.books.give({before: shares})
        del self._by_client[allocation.client]
        allocation.client = client
        self._by_client[client] = allocation

    def _index(self, allocation: Allocation) -> dict[Address, Allocation]:
        return self._by_tcp_relayed if allocation.is_tcp else self._by_relayed

    def schedule(self, allocation: Allocation, due: float | None = None) -> None:
        """See that ``due`` names the allocation when something of it expires.

        :param due: the end of what was given just now, where the rest is scheduled already.
        """
        if due is None:
            due = allocation.next_due()
        if not allocation.due or due < allocation.due:
            allocation.due = due
            self._serial += 1
            heapq.heappush(self._due, (due, self._serial, allocation))

    def due(self, now: float) -> Iterator[Allocation]:
        """The allocations to look at by ``now``, each once; reschedule them."""
        while self._due and self._due[0][0] <= now:
            due, _, allocation = heapq.heappop(self._due)
            if due == allocation.due:  # else it was rescheduled, or is gone
                allocation.due = 0.0
                yield allocation

    def reserve(self, token: bytes, reservation: Reservation) -> None:
        """Hold a port for the owner of a token; it counts as one more allocation of the user's."""
        self._reservations[token] = reservation
        self._count(shares_of_owner(reservation.owner, 1))

    def reserved(self, token: bytes, owner: Owner) -> Relay:
        """The port that a token stands for.

        :raises StunError: 508 where there is none of this owner's (RFC 8656 §7.2).
        """
        reservation = self._reservations.get(token)
        # Not the whole owner: coturn's client asks for the second port of a pair with an
        # access token of its own, which has another key (RFC 7635).
        if reservation is None or reservation.owner._replace(user=owner.user) != owner:
            raise StunError(508)
        return reservation.relay

    def claim(self, token: bytes, owner: Owner) -> Relay:
        """Take the port that a token stands for. :raises StunError: as ``reserved``."""
        self.reserved(token, owner)
        return self._unreserve(token)

    def unreserve(self, is_over: Callable[[Reservation], bool]) -> Iterator[Relay]:
        """The ports that are not held any longer; the caller closes them."""
        for token in [t for t, held in self._reservations.items() if is_over(held)]:
            yield self._unreserve(token)

    def _unreserve(self, token: bytes) -> Relay:
        reservation = self._reservations.pop(token)
        self.books.give(shares_of_owner(reservation.owner, 1))
        return reservation.relay


def place_of(client: FiveTuple) -> Key:
    """What counts the allocations of a client's address."""
    return "address", address_quota_key(client.client.host)


def shares_of_owner(owner: Owner, addresses: int) -> dict[Key, int]:
    """What so many relayed addresses count for, wherever their client is."""
    shares = {("user", owner.user): addresses}
    if owner.tenant:
        shares["tenant", owner.tenant] = addresses
    return shares


def shares_of(allocation: Allocation, addresses: int) -> dict[Key, int]:
    """What so many relayed addresses of an allocation count for."""
    owner = allocation.owner
    shares = {("user", owner.user): addresses, place_of(allocation.client): addresses}
    if owner.tenant:
        shares["tenant", owner.tenant] = addresses
    return shares


def _most_in(tenant: TenantLimits, every: Mapping[str, int]) -> Most:
    """The limits of a tenant's users. :param every: those of all others."""
    of_user = tenant.allocations_per_user or every["user"]
    most = {**every, "user": of_user, "tenant": tenant.allocations}
    return {kind: count for kind, count in most.items() if count}


def address_quota_key(host: str) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64 (one customer's network)."""
    return str(ip_network(f"{host}/64", strict=False)) if ":" in host else host
