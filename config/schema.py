"""The settings tree: every option, its default, its unit and its reason.

A component is handed its section, never the tree. ``config/icebroker.toml`` shows the same
options for an operator; a test holds the two together.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from config.values import (
    AddressText,
    Endpoint,
    Endpoints,
    EndpointText,
    ExternalText,
    NetworkText,
    PortRange,
    PortRangeText,
    Seconds,
    Secrets,
)

MINIMUM_SECRET_BYTES = 16
MAKE_ONE = "make one with: openssl rand -base64 32"
NOT_BUILT = "is not in this version of Icebroker yet (CHANGELOG.md says what is)"

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A part of the settings: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TurnSettings(Section):
    """The STUN/TURN relay."""

    listen: Endpoints = (Endpoint("0.0.0.0", 3478), Endpoint("::", 3478))  # noqa: S104 - a server
    """Addresses for STUN and TURN over UDP and TCP; a wildcard is each of the machine's."""

    listen_tls: Endpoints = ()
    """Addresses for TURN over TLS, for example "0.0.0.0:5349"; needs the two files below."""

    listen_dtls: Endpoints = ()
    """Addresses for TURN over DTLS."""

    tls_certificate: Path | None = None
    """PEM file with the certificate and its chain."""

    tls_key: Path | None = None
    """PEM file with the certificate's private key."""

    hostname: str = ""
    """The DNS name that clients reach the relay by; ICE URLs carry it (`turns:` needs one)."""

    realm: Annotated[str, Field(min_length=1, max_length=127)] = "icebroker"
    """The realm of the long-term credentials (RFC 8489 §9.2)."""

    relay_addresses: tuple[AddressText, ...] = ()
    """Addresses to relay from; empty: the machine's own (loopback if it has no other)."""

    external_addresses: tuple[ExternalText, ...] = ()
    """Public address in place of the relay address behind 1:1 NAT: "PUBLIC" or "PUBLIC/LOCAL"."""

    relay_ports: PortRangeText = PortRange(49152, 65535)
    """UDP ports to relay from, both ends included."""

    secret: Secrets = ()
    """Shared secret of the time-limited credentials, or a list of them while rotating (the first
    one mints, all are accepted). At least 16 bytes each."""

    users: dict[str, SecretStr] = {}
    """Static users: name = password."""

    open: bool = False
    """Allow a public address without `secret` or `users`: a relay for everyone. Don't."""

    allow_peers: tuple[NetworkText, ...] = ()
    """Networks to relay to although the safe defaults refuse them."""

    deny_peers: tuple[NetworkText, ...] = ()
    """Networks never to relay to; stronger than `allow_peers`."""

    open_private_peers: bool = False
    """Relay to private networks (10/8, 100.64/10, 172.16/12, 192.168/16, fc00::/7) too: for a
    laptop or a LAN."""

    max_allocations_per_user: Count = 12
    """Allocations that one user may hold at a time; 0: no limit."""

    max_allocations_per_address: Count = 100
    """Allocations that one client address (an IPv6 /64) may hold at a time; 0: no limit."""

    max_allocations: Count = 0
    """Allocations in all; 0: as many as there are ports."""

    max_permissions: Positive = 64
    """Permissions that one allocation may hold."""

    max_channels: Positive = 64
    """Channels that one allocation may hold."""

    max_lifetime: Seconds = 3600
    """The longest lifetime that an allocation is granted at a time, in seconds (RFC 8656 §7.2)."""

    max_bytes_per_second: Count = 0
    """Bytes of payload a second that one allocation may relay, each way; 0: no limit."""

    max_unauthenticated_per_address: Positive = 64
    """TCP and TLS connections of one address that have not proved who they are."""

    max_unproved_replies_per_second: Positive = 20
    """Replies a second to one address (an IPv6 /64) that has not proved to be itself, so that
    nobody is flooded through us; more than 20 may be needed where many clients share one."""

    max_bindings_per_second: Positive = 50
    """The same for STUN Binding responses."""

    first_request_timeout: Seconds = 10
    """A TCP or TLS connection that has sent no valid request by then is closed, in seconds."""

    nonce_lifetime: Seconds = 3600
    """How long a nonce is good; clients renew it unseen (438), in seconds."""

    data_plane: Literal["auto", "kernel", "userspace"] = "auto"
    """What carries relayed packets; `auto` takes the fastest plane that works here."""

    workers: Positive = 1
    """Processes that share the listening addresses."""

    drain_timeout: Seconds = 30
    """How long live allocations may go on after SIGTERM before they are closed, in seconds."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.listen_dtls:
            raise ValueError(f"listen_dtls: DTLS {NOT_BUILT}")
        if self.workers != 1:
            raise ValueError(f"workers: more than one process {NOT_BUILT}")
        if self.data_plane == "kernel":
            raise ValueError(f'data_plane: the kernel plane {NOT_BUILT}; write "auto"')
        if self.listen_tls and not (self.tls_certificate and self.tls_key):
            raise ValueError("listen_tls: TLS needs tls_certificate and tls_key, both PEM files")
        for name in self.users:
            if not name or ":" in name:
                raise ValueError(f"users: {name!r} is not a user name; it may not hold a colon")
        return self

    def unsafe(self) -> str:
        """What forbids starting the relay as it is set up, as a sentence; "" when nothing does."""
        short = [
            s for s in self.secret if len(s.get_secret_value().encode()) < MINIMUM_SECRET_BYTES
        ]
        if self.open or all(e.is_loopback for e in (*self.listen, *self.listen_tls)):
            return ""
        if short:
            return f"turn.secret is shorter than {MINIMUM_SECRET_BYTES} bytes; {MAKE_ONE}"
        if not self.secret and not self.users:
            return (
                "turn.listen is open to other machines, but turn.secret and turn.users are empty: "
                f"anyone could relay through this machine. Set turn.secret ({MAKE_ONE}), listen "
                "on 127.0.0.1 only, or set turn.open = true if that is what you want"
            )
        return ""


class IceServer(Section):
    """One entry of `RTCConfiguration.iceServers` (W3C WebRTC §4.2.4)."""

    urls: Annotated[tuple[str, ...], Field(min_length=1)]
    """STUN and TURN URLs (RFC 7064, RFC 7065)."""

    username: str = ""
    """For a server that is not ours; ours get time-limited credentials."""

    credential: SecretStr = SecretStr("")
    """For a server that is not ours."""


class SignalingSettings(Section):
    """The signaling service and the pages that it serves."""

    listen: EndpointText = Endpoint("0.0.0.0", 8080)  # noqa: S104 - a server
    """Address for HTTP and the WebSocket; HTTPS where the two files below are set."""

    tls_certificate: Path | None = None
    """PEM file with the certificate and its chain."""

    tls_key: Path | None = None
    """PEM file with the certificate's private key."""

    allowed_origins: tuple[str, ...] = ()
    """Origins whose pages may connect, as "https://app.example.org"; empty: only our own pages;
    "*": every page (refused together with `token_secret`)."""

    token_secret: Secrets = ()
    """Secret of the join tokens (JWT, HS256), or a list of them while rotating; empty: rooms are
    open to everyone. At least 16 bytes each."""

    open: bool = False
    """Allow a public address without `token_secret`: rooms for everyone who can reach it."""

    trusted_proxies: tuple[NetworkText, ...] = ()
    """Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""

    pages: bool = True
    """Serve the call page at `/` and the ICE tester at `/trickle`."""

    ice_servers: tuple[IceServer, ...] = ()
    """ICE servers to hand out; empty: our own relay, from [turn]. A `turn:` entry without
    credentials gets time-limited ones."""

    ice_ttl: Annotated[Seconds, Field(ge=60)] = 3600
    """Lifetime of the relay credentials that are handed out, in seconds."""

    resume_window: Seconds = 30
    """How long a peer whose socket broke stays in its rooms, in seconds."""

    heartbeat: Annotated[Seconds, Field(ge=1)] = 25
    """Seconds between pings; a socket that answers none for twice as long is cut."""

    hello_timeout: Annotated[Seconds, Field(gt=0)] = 5
    """A socket that has not said hello by then is closed, in seconds."""

    max_message_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 65536
    """The longest message of a client, in bytes."""

    max_messages_per_second: Positive = 50
    """Messages a second that a client may send in the long run."""

    max_message_burst: Positive = 100
    """Messages that a client may send at once."""

    max_queued_messages: Positive = 256
    """Messages that wait for a slow reader before its socket is cut (it may resume)."""

    max_queued_bytes: Positive = 1 << 20
    """Bytes that wait for a slow reader before its socket is cut (it may resume)."""

    write_timeout: Annotated[Seconds, Field(gt=0)] = 10
    """A write that makes no progress for this long cuts the socket, in seconds."""

    max_unauthenticated_per_address: Positive = 20
    """Sockets of one address (an IPv6 /64) that have not said hello."""

    max_connections: Count = 0
    """Sockets in all; 0: as many as there are file descriptors."""

    max_rooms_per_session: Positive = 8
    """Rooms that one session may be in at a time; a token may say less."""

    room_capacity: Positive = 64
    """Peers that a room holds; a token may say less."""

    drain_timeout: Seconds = 30
    """How long clients have to move elsewhere after SIGTERM, in seconds."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together: set both, or neither")
        if "*" in self.allowed_origins and self.token_secret:
            raise ValueError(
                'allowed_origins: "*" together with token_secret lets any page use a token that '
                "it gets hold of; name the origins"
            )
        for origin in self.allowed_origins:
            if origin != "*" and not _is_origin(origin):
                raise ValueError(
                    f'allowed_origins: {origin!r} is not an origin; write "https://app.example.org"'
                    " (scheme, host, perhaps a port; no path)"
                )
        return self

    def unsafe(self) -> str:
        """What forbids starting signaling as it is set up, as a sentence; "" when nothing does."""
        for secret in self.token_secret:
            if len(secret.get_secret_value().encode()) < MINIMUM_SECRET_BYTES:
                short = f"signaling.token_secret is shorter than {MINIMUM_SECRET_BYTES} bytes"
                return f"{short}; {MAKE_ONE}"
        if self.listen.is_loopback or self.open or self.token_secret:
            return ""
        return (
            f"signaling.listen = {str(self.listen)!r} is open to other machines, but "
            f"signaling.token_secret is empty: anyone could join any room. Set it ({MAKE_ONE}), "
            "listen on 127.0.0.1, or set signaling.open = true if that is what you want"
        )


class RedisSettings(Section):
    """What many nodes share."""

    url: str = ""
    """redis:// rediss:// redis+sentinel:// redis+cluster://; empty: the embedded broker."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.url:
            raise ValueError(f"url: the Redis broker {NOT_BUILT}")
        return self


class AdminSettings(Section):
    """Metrics and health, for operators only."""

    listen: EndpointText = Endpoint("127.0.0.1", 9641)
    """Address of /metrics, /healthz and /readyz."""

    token: SecretStr = SecretStr("")
    """Bearer token of the JSON admin API; empty: the API is off."""


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines to write."""

    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: for people on a terminal, JSON lines otherwise."""


def _is_origin(text: str) -> bool:
    scheme, separator, rest = text.partition("://")
    return bool(separator and scheme in {"http", "https"} and rest) and not set(rest) & set(
        "/?#@ *"
    )


class Settings(Section):
    """All sections together, as the configuration file has them."""

    turn: TurnSettings = TurnSettings()
    signaling: SignalingSettings = SignalingSettings()
    redis: RedisSettings = RedisSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()
