"""What strangers may cost us: replies to sources that proved nothing, connections that say nothing.

Memory is fixed whatever the number of sources: a table of cells that sources are hashed to.
"""

import secrets
from array import array
from collections.abc import MutableSequence
from ipaddress import IPv6Address
from socket import inet_aton
from typing import NamedTuple, Self

from turn.allocation.books import Books, OwnBooks, Want
from turn.bandwidth import Key

CELLS = 1 << 18
"""2 MiB a limiter. Two sources share a cell with a chance of 1 in 262,144."""


def network_of(host: str) -> int:
    """What counts as one source: an IPv4 address, or an IPv6 /64.

    A number, since numbers hash alike in all workers.
    """
    if ":" in host:
        return int(IPv6Address(host.partition("%")[0])) >> 64
    return int.from_bytes(inet_aton(host))


class Cells(NamedTuple):
    """What a ``ReplyLimit`` writes to; several workers may share one, and its salt."""

    times: MutableSequence[float]
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

    def __init__(self, most: int, timeout: float, books: Books | None = None) -> None:
        self.most = most
        """Of one address."""
        self.timeout = timeout
        """Seconds until the first valid request; also for the TLS handshake."""
        self._books = books or OwnBooks()
        self.open = 0
        """Of all addresses, here."""

    def enter(self, host: str) -> bool:
        """Count one in; False, and not counted, where the address has its share."""
        if self._books.take((Want(_strangers_of(host), 1, self.most),)):
            return False
        self.open += 1
        return True

    def leave(self, host: str) -> None:
        """Count one out that was counted in."""
        self.open -= 1
        self._books.give({_strangers_of(host): 1})


def _strangers_of(host: str) -> Key:
    return "strangers", f"{network_of(host):x}"
