"""The kinds of network that people sit in, and which path two of them must find.

Nothing here touches a network: ``internet`` builds what this describes.
"""

from typing import NamedTuple

TRANSPORTS = ("udp", "tcp", "tls")
"""How a relay can be reached, the best way first."""


class Kind(NamedTuple):
    """A kind of network, as a host in it meets it."""

    name: str
    ipv4: bool = True
    ipv6: bool = False
    relay_by: str = "udp"
    """The best way from here to the relay; without UDP there is no direct path either."""
    filters: bool = True
    """A packet only comes in from an address and port that one was sent to (RFC 4787 §5)."""
    symmetric: bool = False
    """Each destination sees another port (address and port-dependent mapping, RFC 4787 §4.1)."""
    rules: str = ""
    """The router's nftables; "": there is no router, the host has public addresses."""


# A home router drops what it did not ask for. It has to: a packet that it took for its own would
# occupy the mapping that the host behind it is about to make.
_ROUTER = """
chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname lan accept
    meta l4proto { icmp, icmpv6 } accept
}
chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname lan oifname lan accept comment "a bridge may be made to ask here"
    %s
}
"""
_NAT = "chain out { type nat hook postrouting priority srcnat; oifname wan masquerade %s; }"

OPEN = Kind("open", ipv6=True, filters=False)
RESTRICTED = Kind("port-restricted", rules=_ROUTER % "iifname lan accept" + _NAT % "")
SYMMETRIC = Kind(
    "symmetric",
    symmetric=True,
    rules=_ROUTER % "iifname lan accept" + _NAT % "random,fully-random",
)
NO_UDP = Kind(
    "UDP blocked",
    relay_by="tcp",
    rules=_ROUTER % "meta l4proto udp drop\n    iifname lan accept" + _NAT % "",
)
PROXY = Kind("only a proxy", relay_by="tls", rules=_ROUTER % "")
"""No packet goes through; a CONNECT proxy at the router lets out TCP to port 443."""
IPV6 = Kind("IPv6 only", ipv4=False, ipv6=True, rules=_ROUTER % "iifname lan accept")
"""No NAT, but a firewall that lets in what was asked for."""
KINDS = (OPEN, RESTRICTED, SYMMETRIC, NO_UDP, PROXY, IPV6)

LAN = Kind(
    "one LAN, no STUN",
    relay_by="nothing",
    rules=_ROUTER % "iifname lan ip daddr 20.0.0.10 tcp dport 443 accept" + _NAT % "",
)
"""Two hosts beside each other; their router lets out HTTPS to the pages and nothing else."""


def direct(one: Kind, other: Kind) -> bool:
    """Whether hosts in these networks can reach each other without a relay."""
    if one is other is LAN:
        return True
    common = (one.ipv4 and other.ipv4) or (one.ipv6 and other.ipv6)
    udp = one.relay_by == other.relay_by == "udp"
    # Whoever filters must be told a port that the other side's packets will have.
    guessing = (one.symmetric and other.filters) or (other.symmetric and one.filters)
    return common and udp and not guessing


class Expected(NamedTuple):
    """What must win between two networks: how each end's packets leave it."""

    one: frozenset[str]
    """"direct" (to the peer, or to the peer's relay) or the transport to a relay of its own."""
    other: frozenset[str]
    relayed: bool
    """Whether a relay of either end is in the path."""


def expected(one: Kind, other: Kind) -> Expected:
    """The path that must win: direct, else a relay by the best transport that each end has.

    Where each end can do without a relay of its own as long as the other has one, either may
    win: ICE ranks them alike (RFC 8445 §5.1.2).
    """
    if direct(one, other):
        return Expected(frozenset({"direct"}), frozenset({"direct"}), relayed=False)
    return Expected(_ways(one, other), _ways(other, one), relayed=True)


def _ways(here: Kind, there: Kind) -> frozenset[str]:
    """How ``here`` may reach ``there`` where a relay is needed; relayed addresses are IPv4."""
    own = frozenset({here.relay_by})
    if here.relay_by != "udp" or not here.ipv4:
        return own
    needs_no_relay = frozenset({"direct"})
    if there.relay_by != "udp" or not there.ipv4:
        return needs_no_relay
    return own | needs_no_relay
