"""Which clients are served by their address: what an operator keeps out, whoever it says it is."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address

from turn.allocation.policy import Network
from turn.codec.errors import StunError

HOSTS_REMEMBERED = 4096
WHY = "turn.deny_clients or turn.allow_clients keeps the client's address out"


class Clients:
    """Judges the addresses of clients; with PROXY headers, those that they name."""

    def __init__(self, allow: Sequence[Network], deny: Sequence[Network]) -> None:
        """Know the networks.

        :param allow: clients of these alone; none: of every one.
        :param deny: clients of these not; stronger.
        """
        self._allow, self._deny = tuple(allow), tuple(deny)
        self.admits = lru_cache(HOSTS_REMEMBERED)(self._admits)
        """Whether clients of a host are served."""

    def check(self, host: str) -> None:
        """See that clients of a host are served. :raises StunError: 403."""
        if not self.admits(host):
            raise StunError(403, why=WHY)

    def _admits(self, host: str) -> bool:
        ip = ip_address(host)
        if any(ip in network for network in self._deny):
            return False
        return not self._allow or any(ip in network for network in self._allow)
