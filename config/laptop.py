"""``icebroker serve`` without a configuration: the settings of a laptop, and what it says."""

import secrets
from collections.abc import Sequence
from typing import Any

from config.signaling import SignalingSettings

LAN_PORT = 8443


def defaults(*, lan: bool) -> dict[str, Any]:
    """What holds where neither the environment nor a file says anything."""
    turn = {"secret": secrets.token_urlsafe(32), "open_private_peers": True}
    # The page of whoever started it: its address, with the token in it, is on the first screen.
    both = {"turn": turn, "admin": {"token": secrets.token_urlsafe(24)}}
    if lan:
        return {**both, "signaling": {"listen": f"0.0.0.0:{LAN_PORT}", "open": True}}
    return {**both, "signaling": {"listen": "127.0.0.1:8080"}}


def banner(facts: dict[str, Any]) -> str:
    """The one screen that ``serve`` prints once both services are up.

    :param facts: page, curl, metrics, operator ("": no page), plane, plane_reason, relay (ICE
        URLs in groups), notes (lines).
    """
    lines = ["", f"  Icebroker {facts['version']} is running.", ""]
    lines += [f"  Call page     {facts['page']}", f"  ICE tester    {facts['page']}trickle"]
    lines += [f"  ICE servers   {facts['curl']}", f"  Metrics       {facts['metrics']}"]
    lines += [f"  Operator      {facts['operator']}"] if facts["operator"] else []
    lines += [f"  Relay         {_places(facts['relay'])}"]
    lines += [f"  Data plane    {facts['plane']} ({facts['plane_reason']})", ""]
    lines += [f"  {line}" for line in facts["notes"]]
    lines += ["", "  Stop with Ctrl-C; a second one does not wait for calls to end.", ""]
    return "\n".join(lines)


def notes(*, bare: bool, lan: bool, private: bool, signaling: SignalingSettings) -> list[str]:
    """What a person should know about how open this is.

    :param bare: without a configuration file; ``lan``: and opened to the network.
    :param private: the relay's users reach private networks.
    """
    found = []
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
    if private:
        found += ["The relay lets its users reach private networks (10/8, 192.168/16, …)."]
    return found


def _places(groups: Sequence[Sequence[str]]) -> str:
    """The relay's URLs without their transports: each place once."""
    urls = [url.partition("?")[0] for group in groups for url in group]
    places = list(dict.fromkeys(url for url in urls if url.startswith("turn")))
    return "  ".join(places[:2]) + (f"  and {len(places) - 2} more" if len(places) > 2 else "")
