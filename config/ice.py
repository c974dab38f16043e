"""The ICE URLs of our own relay, as its settings have it (RFC 7064, RFC 7065)."""

from collections.abc import Sequence

from config.turn import TurnSettings
from config.values import Endpoint

UrlGroup = tuple[str, ...]


def relay_urls(turn: TurnSettings, machine_addresses: Sequence[str]) -> list[UrlGroup]:
    """What clients are told: STUN URLs, then TURN URLs, for each port that is listened on.

    :param machine_addresses: what a wildcard stands for, the best one first.
    """
    stun: dict[str, None] = {}
    relay: dict[str, None] = {}
    for endpoint in dict.fromkeys((*turn.listen, *turn.listen_udp, *turn.listen_tcp)):
        place = _place(turn, endpoint, machine_addresses)
        if place and endpoint in turn.udp:
            stun[f"stun:{place}"] = None
            relay[f"turn:{place}?transport=udp"] = None
        if place and endpoint in turn.tcp:
            relay[f"turn:{place}?transport=tcp"] = None
    for endpoint in turn.listen_tls:
        place = _place(turn, endpoint, machine_addresses)
        if place:
            relay[f"turns:{place}?transport=tcp"] = None
    # No browser speaks DTLS to a relay (turns: over UDP): it would only try in vain.
    # Browsers refuse an entry without URLs.
    return [tuple(group) for group in ((stun,) if turn.stun_only else (stun, relay)) if group]


def _place(turn: TurnSettings, endpoint: Endpoint, machine_addresses: Sequence[str]) -> str:
    """Host and port of an endpoint; "" where no client can reach it."""
    host = _host(turn, endpoint, machine_addresses)
    return f"{host}:{endpoint.port}" if host else ""


def _host(turn: TurnSettings, endpoint: Endpoint, machine_addresses: Sequence[str]) -> str:
    """The name or address by which clients reach an endpoint; "" where there is none."""
    if turn.hostname:
        return _bracketed(turn.hostname)
    ipv6 = ":" in endpoint.host
    public = [e.public for e in turn.external_pairs if (":" in e.public) == ipv6]
    if public:
        return _bracketed(public[0])
    if not endpoint.is_wildcard:
        return _bracketed(endpoint.host)
    own = [address for address in machine_addresses if (":" in address) == ipv6]
    if own or machine_addresses:
        # A wildcard of a family that this machine has no address of (listen has [::] by default):
        # by ::1, a client would find itself.
        return _bracketed(own[0]) if own else ""
    return "[::1]" if ipv6 else "127.0.0.1"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
