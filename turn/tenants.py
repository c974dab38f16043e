"""What each tenant's users have, and what they have relayed: made when somebody asks for it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from turn.allocation.model import Allocation
from turn.routes import RouteTable
from turn.stats import Stats, Tally, TenantBytes


class TenantFigures(NamedTuple):
    """How much that is."""

    allocations: int
    """That live."""
    sent_bytes: int
    """To peers, since the start."""
    received_bytes: int


def allocations_of_tenants(allocations: Iterable[Allocation]) -> Tally[str]:
    """How many live, by tenant."""
    found: Tally[str] = Tally()
    for allocation in allocations:
        if allocation.owner.tenant:
            found[allocation.owner.tenant] += 1
    return found


def bytes_of_tenants(
    allocations: Iterable[Allocation], routes: RouteTable, stats: Stats
) -> TenantBytes:
    """What has been relayed, also by live allocations."""
    found = TenantBytes(stats.tenant_bytes)
    for allocation in allocations:
        if allocation.owner.tenant:
            carried = routes.carried(allocation.routes)
            found.add(allocation.owner.tenant, carried.sent_bytes, carried.received_bytes)
    return found


def figures_of_tenants(
    names: Iterable[str], allocations: Mapping[str, int], relayed: TenantBytes
) -> dict[str, TenantFigures]:
    """Of each tenant that there is."""
    return {
        name: TenantFigures(
            allocations.get(name, 0), relayed[name, "to_peer"], relayed[name, "to_client"]
        )
        for name in names
    }
