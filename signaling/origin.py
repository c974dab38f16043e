"""Which web pages may talk to us, and who is at the other end of a proxy.

A page of another site must not join rooms with what the user's browser can reach: the check is
exact, and a page is "ours" only under a name that an attacker cannot point at us.
"""

import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

Network = IPv4Network | IPv6Network


class Caller(NamedTuple):
    """Who asks: the client's address and how its page was loaded, proxies looked through."""

    host: str
    scheme: str

    @property
    def network(self) -> str:
        """What counts as one address: an IPv4 address, or an IPv6 /64."""
        if ":" not in self.host:
            return self.host
        return str(ip_network(f"{self.host.partition('%')[0]}/64", strict=False))


class OriginPolicy:
    """Judges the ``Origin`` header (RFC 6454 §7; RFC 6455 §10.2)."""

    def __init__(
        self, allowed: Sequence[str], trusted_proxies: Sequence[Network], *, tokens: bool
    ) -> None:
        """Prepare to judge.

        :param tokens: joins need a token, so that our own pages may have any name. Without one,
            a name that DNS could be made to point here (rebinding) is no name of ours.
        """
        self._own_names = {"localhost", socket.gethostname().lower()}
        self.replace(allowed, trusted_proxies, tokens=tokens)

    def replace(
        self, allowed: Sequence[str], trusted_proxies: Sequence[Network], *, tokens: bool
    ) -> None:
        """Judge by these from now on; parameters as above."""
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self._trusted = tuple(trusted_proxies)
        self._tokens = tokens

    def caller(self, peer: str, scheme: str, headers: Mapping[str, str]) -> Caller:
        """The client behind the proxies that we trust; others' headers are not believed.

        :param headers: of those that there may be several, one line after another.
        """
        peer = _plain(peer)
        if not self.is_trusted(peer):
            return Caller(peer, scheme)
        chain = [part.strip() for part in headers.get("X-Forwarded-For", "").split(",")]
        forwarded = headers.get("X-Forwarded-Proto", scheme).split(",")[0].strip()
        scheme = forwarded if forwarded in {"http", "https"} else scheme
        for address in reversed(chain):
            if not _is_address(address):
                break
            peer = _plain(address)
            if not self.is_trusted(peer):
                break
        return Caller(peer, scheme)

    def allows(self, origin: str | None, host: str, scheme: str) -> bool:
        """Whether a page of ``origin`` may talk to us at ``host`` (the Host header).

        No origin means no browser: the header is there on every WebSocket of a page.
        """
        if origin is None or "*" in self._allowed or origin.lower() in self._allowed:
            return True
        if origin != f"{scheme}://{host}":
            return False
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False  # "[", or letters that would be a "/" in another form
        return self._tokens or _is_address(name) or self._is_own_name(name)

    def shared_with(self, origin: str | None) -> str | None:
        """The value of ``Access-Control-Allow-Origin`` for a page of another site, if any."""
        if origin is None:
            return None
        if "*" in self._allowed:
            return "*"
        return origin if origin.lower() in self._allowed else None

    def _is_own_name(self, name: str) -> bool:
        return name in self._own_names or name.endswith((".localhost", ".local"))

    def is_trusted(self, address: str) -> bool:
        """Whether an address is that of one of our proxies."""
        return _is_address(address) and any(ip_address(address) in n for n in self._trusted)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _plain(address: str) -> str:
    """An IPv4 address inside IPv6 as IPv4: else all of them would count as one network."""
    mapped = getattr(ip_address(address), "ipv4_mapped", None) if _is_address(address) else None
    return str(mapped) if mapped else address
