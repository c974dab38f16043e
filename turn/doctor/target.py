"""What is to be tried: ICE URLs (RFC 7064, RFC 7065), and the credentials that go with them."""

import re
from typing import NamedTuple

from turn.auth.ephemeral import mint
from turn.routes import Transport

URL = re.compile(
    r"(?P<scheme>stuns?|turns?):(?://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^:?/\[\]\s]+)"
    r"(?::(?P<port>\d{1,5}))?(?:\?transport=(?P<transport>udp|tcp))?",
    re.IGNORECASE,
)
SHAPE = "write turn:HOST:PORT?transport=udp, turns:HOST:PORT?transport=tcp, or stun:HOST:PORT"


class Target(NamedTuple):
    """A server, and how to speak to it."""

    url: str
    host: str
    port: int
    transport: Transport
    relays: bool
    """TURN; else STUN only."""


class Credentials(NamedTuple):
    """What there is to show; any of it may be missing."""

    username: str = ""
    password: str = ""
    secret: str = ""
    """Makes time-limited credentials, and tells a wrong clock from a wrong secret."""

    @property
    def known(self) -> bool:
        """Whether there is anything to authenticate with."""
        return bool(self.secret or (self.username and self.password))

    def at(self, expires: float) -> "Credentials":
        """Time-limited ones that end then (Unix time)."""
        username, password = mint(self.secret, self.username or "doctor", int(expires))
        return Credentials(username, password, self.secret)


def parse_url(text: str) -> Target:
    """Read a URL. :raises ValueError: it is none; the message says what would be."""
    match = URL.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no ICE URL; {SHAPE}")
    scheme, secure = match["scheme"].lower(), match["scheme"].lower().endswith("s")
    wanted = (match["transport"] or ("tcp" if secure else "udp")).lower()
    port = int(match["port"] or (5349 if secure else 3478))
    if not 0 < port < 65536:
        raise ValueError(f"{text!r}: {port} is no port")
    transport = {
        ("udp", False): Transport.UDP,
        ("tcp", False): Transport.TCP,
        ("tcp", True): Transport.TLS,
        ("udp", True): Transport.DTLS,
    }[wanted, secure]
    host = match["host"].strip("[]")
    return Target(text.strip(), host, port, transport, scheme.startswith("turn"))
