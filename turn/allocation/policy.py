"""Which peers may be relayed to: the one judgement before every door that makes a route.

First match wins: denied by the operator; tunnelled (6to4, Teredo); allowed by the operator;
everybody else, if so told; an own address (only live relay ports, so that two relayed clients
meet); the frozen table of addresses that no stranger should reach through us; else allowed.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import NamedTuple, TypeVar

from turn.codec.values import Address

Network = IPv4Network | IPv6Network
N = TypeVar("N", IPv4Network, IPv6Network)
IpAddress = IPv4Address | IPv6Address


class Networks:
    """Networks of both families; whether an address is in any takes no longer for many of them."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._all = tuple(networks)
        self._ranges = {
            4: _ranges([one for one in self._all if isinstance(one, IPv4Network)]),
            6: _ranges([one for one in self._all if isinstance(one, IPv6Network)]),
        }

    def __iter__(self) -> Iterator[Network]:
        return iter(self._all)

    def __contains__(self, ip: IpAddress) -> bool:
        firsts, lasts = self._ranges[ip.version]
        number = int(ip)
        place = bisect_right(firsts, number)
        return place > 0 and number <= lasts[place - 1]


def _ranges(networks: Iterable[N]) -> tuple[list[int], list[int]]:
    """The first and the last addresses of what networks cover, in order."""
    covered = list(collapse_addresses(networks))
    firsts = [int(one.network_address) for one in covered]
    return firsts, [int(one.broadcast_address) for one in covered]


def _networks(text: str) -> Networks:
    return Networks(ip_network(part) for part in text.split())


# IANA's special-purpose registries, CGNAT, multicast, and 168.63.129.16 (Azure's host agent).
REFUSED_IPV4 = _networks(
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 "
    "192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 "
    "198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32"
)
# Outside of global unicast nothing is a peer: loopback, link-local, ULA, multicast, and every
# form of IPv4 in IPv6 but 6to4 and Teredo, which the table below names.
GLOBAL_IPV6 = IPv6Network("2000::/3")
REFUSED_IPV6 = _networks("2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20")
# What a laptop or a LAN opens on purpose; never loopback, link-local or multicast.
PRIVATE = _networks("10.0.0.0/8 100.64.0.0/10 172.16.0.0/12 192.168.0.0/16 fc00::/7")
MOST_VERDICTS = 4096
"""That are kept: a host is asked about at each permission, channel and new peer (7 µs, or 0.1)."""
# ISATAP (RFC 5214 §6.1) hides an IPv4 address in the interface identifier of any prefix.
ISATAP_MARKS = (0x00005EFE, 0x02005EFE)


class PolicyRules(NamedTuple):
    """What the operator says about peers."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    only_allowed: bool = False
    """Nobody is a peer but who is in ``allow``."""
    open_private: bool = False
    """Treat private networks as public ones."""
    reserved_ports: frozenset[int] = frozenset()
    """Ports of our own services: never relayed to on an own address, whatever is allowed."""
    external: tuple[tuple[str, str], ...] = ()
    """(public, local) pairs of 1:1 NAT."""


class PeerPolicy:
    """Judges peers; told which addresses are the machine's own and which relay ports live."""

    def __init__(
        self,
        rules: PolicyRules,
        own_addresses: Collection[str],
        is_live_relay: Callable[[Address], bool],
        is_live_tcp_relay: Callable[[Address], bool] = lambda _: False,
    ) -> None:
        self._is_live_relay = is_live_relay
        self._is_live_tcp_relay = is_live_tcp_relay
        self._machine: frozenset[str] = frozenset()
        self._verdicts: dict[str, bool] = {}
        self.set_rules(rules)
        self.own_addresses = frozenset(own_addresses)

    def set_rules(self, rules: PolicyRules) -> None:
        """Judge by these from now on."""
        self._allowed, self._denied = Networks(rules.allow), Networks(rules.deny)
        self._only_allowed = rules.only_allowed
        self._open_private = rules.open_private
        self._reserved = set(rules.reserved_ports)
        self._public_of = {local: public for public, local in rules.external}
        self._local_of = dict(rules.external)
        self._own = self._machine | frozenset(self._local_of)
        self._verdicts.clear()

    @property
    def own_addresses(self) -> frozenset[str]:
        """The machine's own addresses, in canonical text; assign when they change."""
        return self._own

    @own_addresses.setter
    def own_addresses(self, addresses: frozenset[str]) -> None:
        self._machine = addresses
        self._own = self._machine | frozenset(self._local_of)
        self._verdicts.clear()

    def reserve_ports(self, ports: Iterable[int]) -> None:
        """Never relay to these ports of an own address, whatever the operator allows."""
        self._reserved |= set(ports)

    def allows_host(self, host: str) -> bool:
        """Whether a permission for this peer IP address may exist (CreatePermission)."""
        verdict = self._verdicts.get(host)
        if verdict is None:
            verdict = self._judge(host)
            if len(self._verdicts) >= MOST_VERDICTS:
                self._verdicts.clear()
            self._verdicts[host] = verdict
        return verdict

    def _judge(self, host: str) -> bool:
        ip = ip_address(host)
        verdict = self._operator_or_own(host, ip)
        return verdict if verdict is not None else not self._is_refused(ip)

    def allows(self, peer: Address) -> bool:
        """Whether a packet may go to this peer transport address (ChannelBind, Send)."""
        return self._allows(peer, self._is_live_relay)

    def allows_connection(self, peer: Address) -> bool:
        """Whether a TCP connection to this peer transport address may be made (Connect)."""
        return self._allows(peer, self._is_live_tcp_relay)

    def _allows(self, peer: Address, is_live: Callable[[Address], bool]) -> bool:
        if peer.port == 0 or not self.allows_host(peer.host):
            return False
        if peer.host not in self._own:
            return True
        if is_live(self.to_wire(peer)):
            return True
        # The operator may allow an own address by name (a server on this very machine), but
        # never the ports of the relay, its metrics, signaling and Redis.
        return peer.port not in self._reserved and ip_address(peer.host) in self._allowed

    def to_wire(self, peer: Address) -> Address:
        """A peer as the client names it -> as packets are addressed (1:1 NAT has no hairpin)."""
        local = self._local_of.get(peer.host)
        return Address(local, peer.port) if local else peer

    def to_client(self, peer: Address) -> Address:
        """The source of a peer's packet -> as the client names it."""
        public = self._public_of.get(peer.host)
        return Address(public, peer.port) if public and self._is_ours(peer) else peer

    def _is_ours(self, address: Address) -> bool:
        return self._is_live_relay(address) or self._is_live_tcp_relay(address)

    def _operator_or_own(self, host: str, ip: IpAddress) -> bool | None:
        embedded = embedded_ipv4(ip)
        if ip in self._denied or (embedded and embedded in self._denied):
            return False
        if is_tunnelled(host):
            return False
        if ip in self._allowed:
            return True
        if self._only_allowed:
            return False
        return True if host in self._own else None

    def _is_refused(self, ip: IpAddress) -> bool:
        if self._open_private and ip in PRIVATE:
            return False
        if isinstance(ip, IPv4Address):
            return ip in REFUSED_IPV4
        return ip not in GLOBAL_IPV6 or ip in REFUSED_IPV6 or embedded_ipv4(ip) is not None


def embedded_ipv4(ip: IpAddress) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, whatever the scheme; else None.

    Mapped and compatible (RFC 4291 §2.5.5), NAT64 (RFC 6052 §2.1, RFC 8215), 6to4 (RFC 3056 §2),
    Teredo's client (RFC 4380 §4), ISATAP (RFC 5214 §6.1).
    """
    if isinstance(ip, IPv4Address):
        return None
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    if ip.teredo:
        return ip.teredo[1]
    number = int(ip)
    low = IPv4Address(number & 0xFFFFFFFF)
    if number >> 32 in {0, 0x0064FF9B << 64} or number >> 80 == 0x0064FF9B0001:
        return low
    if (number >> 32) & 0xFFFFFFFF in ISATAP_MARKS:
        return low
    return None


def is_tunnelled(host: str) -> bool:
    """Whether packets of this address come out of a 6to4 or Teredo tunnel (RFC 8656 §21.4).

    The tunnel's end and a relay could pass one packet to and fro.
    """
    if ":" not in host:
        return False
    ip = IPv6Address(host)
    return ip.sixtofour is not None or ip.teredo is not None
