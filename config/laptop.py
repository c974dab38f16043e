"""``icebroker serve`` without a configuration: the settings of a laptop, and what it says."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from config.ice import UrlGroup
from config.schema import Settings

LAN_PORT = 8443
LAST_WORDS = 2
"""Seconds in which open tabs are told that it ends."""


def defaults(*, lan: bool) -> dict[str, Any]:
    """What holds where neither the environment nor a file says anything."""
    turn = {"secret": secrets.token_urlsafe(32), "open_private_peers": True}
    # The page of whoever started it: its address, with the token in it, is on the first screen.
    both = {"turn": turn, "admin": {"token": secrets.token_urlsafe(24)}}
    # There is no other node that an open tab could go to.
    signaling: dict[str, Any] = {"drain_timeout": LAST_WORDS}
    if lan:
        signaling |= {"listen": f"0.0.0.0:{LAN_PORT}", "open": True}
    else:
        signaling |= {"listen": "127.0.0.1:8080"}
    return {**both, "signaling": signaling}


class Running(NamedTuple):
    """What is known only once it runs."""

    version: str
    admin: tuple[str, int]
    """Where the admin listener is."""
    relay: Sequence[UrlGroup]
    plane: str
    plane_reason: str


def banner(
    settings: Settings, running: Running, machine: Sequence[str], *, bare: bool, lan: bool
) -> str:
    """The one screen that ``serve`` prints once both services are up.

    :param machine: this machine's addresses, the best one first.
    :param bare: without a configuration file; ``lan``: and opened to the network.
    """
    page, operator = _page(settings, machine), _operator_page(settings, running.admin, bare=bare)
    ice = f"{page}ice"
    if settings.signaling.token_secret:
        ice = f'"{ice}?token=$(icebroker token ROOM)"'
    lines = ["", f"  Icebroker {running.version} is running.", ""]
    lines += [f"  Call page     {page}", f"  ICE tester    {page}trickle"]
    lines += [f"  ICE servers   curl {'-k ' if lan else ''}{ice}"]
    lines += [f"  Metrics       http://{running.admin[0]}:{running.admin[1]}/metrics"]
    lines += [f"  Operator      {operator}"] if operator else []
    lines += [f"  Relay         {_places(running.relay)}"]
    lines += [f"  Data plane    {running.plane} ({running.plane_reason})", ""]
    lines += [f"  {line}" for line in _notes(settings, bare=bare, lan=lan)]
    lines += ["", "  Stop with Ctrl-C; a second one does not wait for calls to end.", ""]
    return "\n".join(lines)


def _page(settings: Settings, machine: Sequence[str]) -> str:
    listen = settings.signaling.listen
    host = machine[0] if listen.is_wildcard else listen.host
    scheme = "https" if settings.signaling.tls_certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listen.port}/"


def _operator_page(settings: Settings, admin: tuple[str, int], *, bare: bool) -> str:
    token = settings.admin.token.get_secret_value()
    page = f"http://{admin[0]}:{admin[1]}/"
    # A token that was made for this run may be shown; an operator's own never is.
    return "" if not token else f"{page}#token={token}" if bare else page


def _notes(settings: Settings, *, bare: bool, lan: bool) -> list[str]:
    """What a person should know about how open this is, and whom it does not serve."""
    found, signaling = [], settings.signaling
    if lan:
        found += [
            "Everyone on your network can open the page and join any room. The browser",
            "warns of the certificate once, because this machine made it: accept it.",
        ]
    elif signaling.token_secret:
        found += ["A room needs a token: icebroker token ROOM, then /?room=ROOM#token=TOKEN"]
    elif bare and signaling.listen.is_loopback:
        found += ["Only this machine can open the page. For a phone: icebroker serve --lan"]
    else:
        found += ["Rooms are open to everyone who can reach the page: no signaling.token_secret."]
    if not (
        settings.turn.stun_only
        or signaling.ice_servers
        or settings.turn.secret_of(signaling.ice_tenant)
    ):
        found += [
            "Pages get no relay: to make credentials for them, set turn.secret, or have",
            "signaling.ice_tenant name one of turn.tenants that has a secret.",
        ]
    if settings.turn.open_private_peers:
        found += ["The relay lets its users reach private networks (10/8, 192.168/16, …)."]
    return found


def _places(groups: Sequence[Sequence[str]]) -> str:
    """The relay's URLs without their transports: each place once."""
    urls = [url.partition("?")[0] for group in groups for url in group]
    relays = [url for url in urls if url.startswith("turn")]
    places = list(dict.fromkeys(relays or urls))  # with turn.stun_only there is no relay
    return "  ".join(places[:2]) + (f"  and {len(places) - 2} more" if len(places) > 2 else "")
