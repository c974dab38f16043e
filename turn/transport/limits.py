"""What strangers may cost us: replies to sources that proved nothing, connections that say nothing.

Memory is fixed whatever the number of sources: a table of cells that sources are hashed to.
"""

import secrets
from array import array
from collections import Counter
from ipaddress import IPv6Address

CELLS = 1 << 18
"""2 MiB a limiter. Two sources share a cell with a chance of 1 in 262,144."""


def network_of(host: str) -> str | int:
    """What counts as one source: an IPv4 address, or an IPv6 /64."""
    return int(IPv6Address(host.partition("%")[0])) >> 64 if ":" in host else host


class ReplyLimit:
    """A rate limit for each source: the generic cell rate algorithm, one float a cell.

    A cell holds the time at which its source's bucket would be full again; ``burst`` is one
    second's worth.
    """

    def __init__(self, per_second: int) -> None:
        self.set_rate(per_second)
        self._cells = array("d", bytes(8 * CELLS))
        # Drawn anew at each start, so that nobody can aim at the cell of another.
        self._salt = secrets.randbits(64)

    def set_rate(self, per_second: int) -> None:
        """Allow so many from now on."""
        self._cost = 1.0 / per_second

    def allow(self, host: str, now: float) -> bool:
        """Whether one more reply may go to ``host`` at the monotonic time ``now``."""
        cell = hash((self._salt, network_of(host))) % CELLS
        full = max(self._cells[cell], now) + self._cost
        # Half a reply of tolerance: the sum of many costs is not exact.
        if full > now + 1.0 + self._cost / 2:
            return False
        self._cells[cell] = full
        return True


class ConnectionLimit:
    """What connections that have not proved who they are may cost: how many of them, how long."""

    def __init__(self, most: int, timeout: float) -> None:
        self.most = most
        """Of one address."""
        self.timeout = timeout
        """Seconds until the first valid request; also for the TLS handshake."""
        self._open: Counter[str | int] = Counter()

    def enter(self, host: str) -> bool:
        """Count one in; False, and not counted, where the address has its share."""
        network = network_of(host)
        if self._open[network] >= self.most:
            return False
        self._open[network] += 1
        return True

    def leave(self, host: str) -> None:
        """Count one out that was counted in."""
        network = network_of(host)
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]
