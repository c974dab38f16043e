"""ICE servers for clients: what goes into ``new RTCPeerConnection(...)``, with credentials.

Credentials are time-limited; the relay checks their expiry when an allocation begins, so a call
outlives them.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from turn.auth.ephemeral import mint

LOOK_AGAIN = 10
"""Seconds after which the servers are asked for anew: a machine may get another address."""


class Server(NamedTuple):
    """A configured ICE server; ours has no credentials of its own."""

    urls: tuple[str, ...]
    username: str = ""
    credential: str = ""

    @property
    def is_relay(self) -> bool:
        """Whether it wants credentials (RFC 7065)."""
        return any(url.startswith(("turn:", "turns:")) for url in self.urls)


class IceGrant(NamedTuple):
    """ICE servers that are good until ``expires_at``."""

    ice_servers: list[dict[str, Any]]
    expires_at: int
    """Unix time in seconds."""
    ttl: int
    username: str
    password: str
    uris: list[str]
    """The relay's URLs (draft-uberti-behave-turn-rest-00 §2.2)."""

    @property
    def expires_text(self) -> str:
        """``expires_at`` as RFC 3339 has it."""
        return datetime.fromtimestamp(self.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def document(self) -> dict[str, Any]:
        """The body of ``GET /ice``: an ``RTCConfiguration`` and more."""
        return {
            "iceServers": self.ice_servers,
            "iceTransportPolicy": "all",
            "ttl": self.ttl,
            "expiresAt": self.expires_text,
            "username": self.username,
            "password": self.password,
            "uris": self.uris,
        }

    def links(self) -> list[str]:
        """``Link`` header values, one a URL (RFC 9725 §4.6)."""
        values = []
        for server in self.ice_servers:
            for url in server["urls"]:
                value = f'<{url}>; rel="ice-server"'
                if "username" in server:
                    value += (
                        f'; username="{_quoted(server["username"])}"'
                        f'; credential="{_quoted(server["credential"])}"'
                        '; credential-type="password"'
                    )
                values.append(value)
        return values


class IceProvider:
    """Hands out ICE servers."""

    def __init__(
        self, servers: Callable[[], Sequence[Server]], secret: str, ttl: int, tenant: str = ""
    ) -> None:
        """Prepare to hand out.

        :param servers: what is to be handed out, as it is now.
        :param secret: the relay's shared secret; "": its ``turn:`` entries are left out, because
            a browser refuses them without credentials.
        :param ttl: lifetime of credentials, in seconds.
        :param tenant: of the relay, whose the secret is; "": nobody's but the relay's.
        """
        self.tenant = tenant
        self.issued = 0
        """Credentials handed out."""
        self.replace(servers, secret, ttl)

    def replace(self, servers: Callable[[], Sequence[Server]], secret: str, ttl: int) -> None:
        """Hand these out from now on; parameters as above."""
        self._find = servers
        self._servers = servers()
        self._found_at: float | None = None
        self._secret = secret
        self.ttl = ttl

    def expiry(self, now: float) -> int:
        """When credentials end that are handed out at ``now``; both Unix times."""
        return int(now) + self.ttl

    def issue(self, name: str, now: float) -> IceGrant:
        """ICE servers for ``name`` (whom the relay's quota counts), as of the Unix time ``now``.

        A tenant's user is named with it (``name_in``).
        """
        if self._found_at is None or abs(now - self._found_at) > LOOK_AGAIN:
            self._found_at = now
            with suppress(OSError):  # no descriptors left: what was found before holds
                self._servers = self._find()
        expires_at = self.expiry(now)
        username, password = mint(self._secret, name, expires_at) if self._secret else ("", "")
        entries: list[dict[str, Any]] = []
        uris: list[str] = []
        for server in self._servers:
            if not server.is_relay:
                entries.append({"urls": list(server.urls)})
            elif server.username:
                entries.append(
                    {"urls": list(server.urls), "username": server.username,
                     "credential": server.credential}
                )  # fmt: skip
            elif self._secret:
                uris += server.urls
                entries.append(
                    {"urls": list(server.urls), "username": username, "credential": password}
                )
        if uris:
            self.issued += 1
        return IceGrant(entries, expires_at, self.ttl, username, password, uris)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
