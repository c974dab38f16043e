"""Which allocations carry a call: a drain waits for those, and not for what a closed tab has left.

A page that goes away seldom says so, and its allocation lives for minutes. A call that lives sends
something over its path at least every six seconds (RFC 7675 §5.1, consent).
"""

from collections.abc import Iterable

from turn.allocation.model import Allocation
from turn.routes import RouteTable

QUIET = 15.0
"""Seconds without a packet after which nobody talks over an allocation."""
FEW = 64
"""Allocations that are looked at all the time, so that a drain of so few knows at once."""


class Idle:
    """Remembers when each allocation was last seen to have relayed something."""

    def __init__(self, allocations: Iterable[Allocation], routes: RouteTable) -> None:
        self._allocations = allocations
        self._routes = routes
        self._seen: dict[int, tuple[int, float]] = {}
        """Number -> packets so far, and when (monotonic) that had changed."""

    def look(self, now: float) -> int:
        """Look at all of them; gives how many are in use."""
        seen: dict[int, tuple[int, float]] = {}
        for allocation in self._allocations:
            carried = self._routes.carried(allocation.routes)
            packets = carried.sent_packets + carried.received_packets
            before, changed = self._seen.get(allocation.number, (-1, now))
            # What TCP connections carry is counted nowhere: they are in use while they are open.
            idle = packets == before and not allocation.is_tcp
            seen[allocation.number] = (packets, changed if idle else now)
        self._seen = seen
        return sum(now - changed < QUIET for _, changed in seen.values())
