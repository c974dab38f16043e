"""The relay as an operator sees it: its figures and its allocations."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from turn.allocation.allocator import CloseReason
from turn.allocation.engine import Engine
from turn.allocation.model import Allocation
from turn.routes import Carried, RouteTable
from turn.stats import DropReason, Stats


class Traffic(Struct, frozen=True):
    """What was relayed, both ways together; bytes are payload."""

    packets: int
    bytes: int


RELAY_EVENTS = ("allocation_created", "allocation_closed", "request_refused")
"""Kinds of events that a relay tells of."""


class ExternalEntry(Struct, frozen=True, kw_only=True):
    """What STUN servers say of an address that is relayed from."""

    local: str
    public: str | None
    """The same where there is no NAT; null: nobody has told it yet."""
    confirmed: float | None
    """When it was told last: Unix time; null: not since the start."""
    keeps_ports: bool
    """False: the NAT maps ports too, so it is not 1:1, and peers do not reach what is relayed."""


class RelayFigures(Struct, frozen=True, kw_only=True):
    """How the relay goes. Counts are since the start."""

    allocations: int
    ports: int
    """Of each relay address."""
    ports_free: int
    """Where the fewest are left."""
    plane: str
    plane_reason: str
    relayed: dict[str, Traffic]
    """By plane."""
    dropped: dict[str, int]
    """Packets, by reason."""
    responses: dict[str, int]
    """By code; 200 is a success."""
    created: int
    """Allocations."""
    closed: dict[str, int]
    """Allocations, by reason."""
    certificate_not_after: float | None
    """Unix time; null without TLS."""
    listening: list[str]
    relay_addresses: list[str]
    external: list[ExternalEntry]
    """Empty where no STUN server is asked."""


def figures_of(
    stats: Stats, relayed: Mapping[str, Carried], drops: Mapping[DropReason, int], **rest: Any
) -> RelayFigures:
    """The figures that come of counters, and all the others."""
    responses: Counter[str] = Counter()
    for (_, code), count in stats.responses.items():
        responses[str(code)] += count
    return RelayFigures(
        relayed={plane: _traffic(carried) for plane, carried in relayed.items()},
        dropped={str(reason): count for reason, count in drops.items()},
        responses=dict(responses),
        created=sum(stats.allocations_created.values()),
        closed=dict(stats.allocations_closed),
        **rest,
    )


def _traffic(carried: Carried) -> Traffic:
    return Traffic(
        carried.sent_packets + carried.received_packets, carried.sent_bytes + carried.received_bytes
    )


class AllocationEntry(Struct, frozen=True, kw_only=True):
    """An allocation in a list. Times are seconds."""

    id: str
    user: str
    tenant: str
    """Whose user that is; empty: no tenant's."""
    transport: str
    client: str
    client_host: str
    server: str
    relayed: list[str]
    relayed_hosts: list[str]
    age: float
    expires_in: float
    permissions: int
    channels: int
    sent_packets: int
    """To peers."""
    sent_bytes: int
    received_packets: int
    """From peers."""
    received_bytes: int


class RouteEntry(Struct, frozen=True, kw_only=True):
    """A peer that packets go to and come from."""

    peer: str
    channel: int | None
    expires_in: float
    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int


class AllocationDetails(AllocationEntry, frozen=True, kw_only=True):
    """All of an allocation."""

    username: str
    permitted: dict[str, float]
    """Peer IP address -> seconds left."""
    routes: list[RouteEntry]


class Allocations:
    """The relay's allocations (``service.Collection``)."""

    name, noun = "allocations", "allocation"
    ends = "Close an allocation: its client hears of it with the next request (437)."
    summary, details = AllocationEntry, AllocationDetails

    def __init__(self, engine: Engine, routes: RouteTable) -> None:
        self._engine = engine
        self._routes = routes

    async def part(self) -> str:
        """Nothing: a relay's allocations are its own."""
        return ""

    async def snapshot(self) -> Mapping[str, Allocation]:
        """Those that live, by number."""
        return {str(allocation.number): allocation for allocation in self._engine.table}

    def summarize(self, thing: Allocation, now: float) -> AllocationEntry:
        """One in a line."""
        return AllocationEntry(**self._fields(thing, now))

    async def inspect(self, thing: Allocation, now: float) -> AllocationDetails:
        """With everyone that it may exchange packets with."""
        routes = [
            RouteEntry(
                peer=str(route.peer),
                channel=route.channel or None,
                expires_in=_left(route.expires, now),
                **_counts(self._routes.carried_by(route)),
            )
            for route in set(thing.routes.peers.values())
        ]
        return AllocationDetails(
            **self._fields(thing, now),
            username=thing.owner.username,
            permitted={host: _left(at, now) for host, at in sorted(thing.permissions.items())},
            routes=sorted(routes, key=lambda route: route.peer),
        )

    async def end(self, thing: Allocation) -> None:
        """Close it, if it lives."""
        if self._engine.table.get(thing.client) is thing:
            self._engine.close(thing, CloseReason.OPERATOR)

    def _fields(self, thing: Allocation, now: float) -> dict[str, Any]:
        publics = [relayed.relay.public for relayed in thing.relayed.values()]
        return {
            "id": str(thing.number),
            "user": thing.owner.user,
            "tenant": thing.owner.tenant,
            "transport": thing.client.transport.value,
            "client": str(thing.client.client),
            "client_host": thing.client.client.host,
            "server": str(thing.client.server),
            "relayed": [str(public) for public in publics],
            "relayed_hosts": [public.host for public in publics],
            "age": round(now - thing.created, 1),
            "expires_in": _left(max((r.expires for r in thing.relayed.values()), default=0), now),
            "permissions": len(thing.permissions),
            "channels": len(thing.channels),
            **_counts(self._routes.carried(thing.routes)),
        }


def _counts(carried: Carried) -> dict[str, int]:
    counts = carried._asdict()
    del counts["spoiled_packets"]  # no one's traffic
    return counts


def _left(expires: float, now: float) -> float:
    return max(0.0, round(expires - now, 1))
