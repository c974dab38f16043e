"""What strangers may cost us: replies to sources that proved nothing, connections that say nothing.

Memory is fixed whatever the number of sources: a table of cells that sources are hashed to.
"""

import secrets
from array import array
from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address
from socket import inet_aton
from typing import NamedTuple, Protocol, Self

CELLS = 1 << 18
"""2 MiB a limiter. Two sources share a cell with a chance of 1 in 262,144."""


@lru_cache(maxsize=64)  # two limits ask of a source, one behind the other
def network_of(host: str) -> int:
    """What counts as one source: an IPv4 address, or an IPv6 /64.

    A number, since numbers hash alike in all workers.
    """
    if ":" in host:
        return int(IPv6Address(host.partition("%")[0])) >> 64
    return int.from_bytes(inet_aton(host))


class Cells(NamedTuple):
    """What a ``ReplyLimit`` writes to; several workers may share one, and its salt."""

    times: "array[float] | memoryview[float]"
    salt: int

    @classmethod
    def own(cls) -> Self:
        """Nobody else's. The salt is another one each time: nobody can aim at a victim's cell."""
        return cls(array("d", bytes(8 * CELLS)), secrets.randbits(64))


class ReplyLimit:
    """A rate limit for each source: the generic cell rate algorithm, one float a cell.

    A cell holds the time at which its source's bucket would be full again; ``burst`` is one
    second's worth.
    """

    def __init__(self, per_second: int, cells: Cells | None = None) -> None:
        self.set_rate(per_second)
        self._cells, self._salt = cells or Cells.own()

    def set_rate(self, per_second: int) -> None:
        """Allow so many from now on."""
        self.cost = 1.0 / per_second
        """What one reply takes, in seconds' worth."""

    def allow(self, host: str, now: float) -> bool:
        """Whether one more reply may go to ``host`` at the monotonic time ``now``."""
        cells, cell = self._cells, hash((self._salt, network_of(host))) % CELLS
        cost = self.cost
        full = max(cells[cell], now) + cost
        # Half a reply of tolerance: the sum of many costs is not exact.
        if full > now + 1.0 + cost / 2:
            return False
        cells[cell] = full
        return True

    def charge(self, host: str, now: float, seconds: float) -> None:
        """Take so many seconds' worth: replies of another kind went to ``host``.

        Else two kinds together would be more for a victim than either share allows. The bucket
        may go into debt by this, by a second at most.
        """
        cell = hash((self._salt, network_of(host))) % CELLS
        self._cells[cell] = min(max(self._cells[cell], now) + seconds, now + 2.0)


class Places(Protocol):
    """How many connections a source has."""

    def count(self, network: int) -> int:
        """Of this network (``network_of``)."""

    def add(self, network: int, amount: int) -> None:
        """Count so many in, or out."""


class OwnPlaces:
    """Those of this process, which has no others beside it."""

    def __init__(self) -> None:
        self._open: Counter[int] = Counter()

    def count(self, network: int) -> int:
        """Of this network."""
        return self._open.get(network, 0)

    def add(self, network: int, amount: int) -> None:
        """Count in or out; of those who have left nothing is remembered."""
        self._open[network] += amount
        if not self._open[network]:
            del self._open[network]


class ConnectionLimit:
    """What connections that have not proved who they are may cost: how many of them, how long."""

    def __init__(self, most: int, timeout: float, places: Places | None = None) -> None:
        self.most = most
        """Of one address."""
        self.timeout = timeout
        """Seconds until the first valid request; also for the TLS handshake."""
        self.open = 0
        """Of all addresses, here."""
        self._places = places or OwnPlaces()

    def enter(self, host: str) -> bool:
        """Count one in; False, and not counted, where the address has its share."""
        network = network_of(host)
        if self._places.count(network) >= self.most:
            return False
        self._places.add(network, 1)
        self.open += 1
        return True

    def leave(self, host: str) -> None:
        """Count one out that was counted in."""
        self._places.add(network_of(host), -1)
        self.open -= 1
