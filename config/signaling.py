"""The settings of signaling."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr

from config.section import (
    MAKE_ONE,
    TOO_SHORT,
    Count,
    Duration,
    Positive,
    Problem,
    Section,
    bad_keys,
    is_short,
    unsigned,
)
from config.tls import unusable
from config.values import (
    Endpoint,
    EndpointText,
    HttpUrlText,
    IceUrls,
    Networks,
    Origins,
    PemFile,
    Seconds,
    Secrets,
    read_list,
)


class IceServer(Section):
    """One entry of `RTCConfiguration.iceServers` (W3C WebRTC §4.2.4)."""

    urls: Annotated[IceUrls, Field(min_length=1)]
    """STUN and TURN URLs (RFC 7064, RFC 7065)."""

    username: str = ""
    """For a server that is not ours; ours get time-limited credentials."""

    credential: SecretStr = SecretStr("")
    """For a server that is not ours."""


class SignalingSettings(Section):
    """The signaling service and the pages that it serves."""

    fixed = frozenset(
        {
            "listen",
            "pages",
            "ice_tenant",
            "max_queued_messages",
            "max_queued_bytes",
            "join_url",
            "webhook_url",
        }
    )

    listen: EndpointText = Endpoint("0.0.0.0", 8080)  # noqa: S104 - a server
    """Address for HTTP and the WebSocket; HTTPS where the two files below are set."""

    tls_certificate: PemFile = None
    """PEM file with the certificate and its chain."""

    tls_key: PemFile = None
    """PEM file with the certificate's private key."""

    allowed_origins: Origins = ()
    """Origins whose pages may connect, as "https://app.example.org"; empty: only our own pages;
    "*": every page (refused together with `token_secret`)."""

    token_secret: Secrets = ()
    """Secret of the join tokens (JWT, HS256), or a list of them while rotating; empty: rooms are
    open to everyone. At least 16 bytes each."""

    open: bool = False
    """Allow a public address without `token_secret`: rooms for everyone who can reach it."""

    trusted_proxies: Networks = ()
    """Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""

    pages: bool = True
    """Serve the call page at `/` and the ICE tester at `/trickle`."""

    ice_servers: Annotated[tuple[IceServer, ...], BeforeValidator(read_list)] = ()
    """ICE servers to hand out; empty: our own relay, from [turn]. A `turn:` entry without
    credentials gets time-limited ones."""

    ice_tenant: str = ""
    """One of `turn.tenants`, whose users all of signaling's are: credentials are made with its
    secret, and operators and webhooks are told of them as `TENANT/NAME`. Empty: nobody's."""

    ice_ttl: Annotated[Seconds, Field(ge=60)] = 3600
    """Lifetime of the relay credentials that are handed out, in seconds."""

    resume_window: Seconds = 30
    """How long a peer whose socket broke stays in its rooms, in seconds."""

    heartbeat: Annotated[Seconds, Field(ge=1)] = 25
    """Seconds between pings; a socket that does not answer one within half of that is cut."""

    hello_timeout: Duration = 5
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

    write_timeout: Duration = 10
    """A write that makes no progress for this long cuts the socket, in seconds."""

    max_unauthenticated_per_address: Positive = 20
    """Sockets of one address (an IPv6 /64) that have not said hello."""

    max_connections: Count = 0
    """Sockets in all; 0: as many as there are file descriptors."""

    max_connections_per_user: Count = 100
    """Sockets that one user (the tokens' claim `sub`) may have open at this node; tokens without
    one count by their room, which may have twice its capacity too. 0: any number."""

    max_rooms_per_session: Positive = 8
    """Rooms that one session may be in at a time."""

    room_capacity: Positive = 64
    """Peers that a room holds, where their tokens do not say (`capacity`)."""

    join_url: HttpUrlText = ""
    """Where your back end decides who may come in (a signed POST), for those without a JWT."""

    join_cache: Seconds = 30
    """How long such a decision holds for the same token and room, in seconds; 0: ask each time."""

    webhook_url: HttpUrlText = ""
    """Where your back end is told what becomes of rooms and peers (signed POSTs, each at least
    once)."""

    webhook_secret: Secrets = ()
    """What these requests are signed with (Standard Webhooks: `whsec_` and base64), or a list of
    such while rotating: each makes a signature. At least 16 bytes each."""

    webhook_timeout: Duration = 3
    """How long your back end may take to answer, in seconds."""

    peerjs: bool = False
    """Serve PeerJS applications at `/peerjs` too; where tokens are asked for, they give one of
    ours as the client's option `token`."""

    peerjs_key: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,64}$")] = "peerjs"
    """The key that their clients have to name. Not a secret: every page has it."""

    peerjs_discovery: bool = False
    """Tell them everyone's id (`listAllPeers`)."""

    peerjs_capacity: Positive = 10000
    """PeerJS clients that may reach each other, where their tokens do not say (`capacity`)."""

    drain_timeout: Seconds = 30
    """How long clients have to move elsewhere after SIGTERM, in seconds."""

    def contradictions(self) -> list[Problem]:
        """Half of a certificate; tokens that any page may use."""
        found = []
        if bool(self.tls_certificate) != bool(self.tls_key):
            given, missing = ("tls_certificate", "tls_key")[:: 1 if self.tls_certificate else -1]
            found.append(Problem(given, f"{missing} is missing: set both for HTTPS, or neither"))
        for key in ("join_url", "webhook_url"):
            found += unsigned(key, getattr(self, key), self.webhook_secret)
        if self.join_url and self.webhook_timeout >= self.hello_timeout:
            text = "not below hello_timeout: a client would be cut before your back end answers"
            found.append(Problem("webhook_timeout", text))
        if "*" in self.allowed_origins and (self.token_secret or self.join_url):
            found.append(
                Problem(
                    "allowed_origins",
                    '"*" together with token_secret or join_url lets any page use a token that it '
                    "gets hold of; name the origins",
                )
            )
        return found

    def needs_restart(self, new: Self) -> list[Problem]:
        """As above; a certificate may change, but HTTP stays HTTP and HTTPS stays HTTPS."""
        found = super().needs_restart(new)
        if bool(self.tls_certificate) != bool(new.tls_certificate):
            found.append(Problem("tls_certificate", "only a restart turns HTTPS on or off"))
        return found

    def dangers(self) -> list[Problem]:
        """Rooms that strangers can reach and enter; HTTPS that cannot begin."""
        found = [Problem(*why) for why in unusable(self.tls_certificate, self.tls_key)]
        if any(is_short(secret) for secret in self.token_secret):
            return [*found, Problem("token_secret", TOO_SHORT)]
        found += bad_keys(self.webhook_secret)
        if self.listen.is_loopback or self.open or self.token_secret or self.join_url:
            return found
        return [
            *found,
            Problem(
                "token_secret",
                f"signaling is open to other machines on {self.listen}, but signaling.token_secret "
                f"is not set: anyone could join any room. Set it ({MAKE_ONE}), listen on "
                "127.0.0.1, or set signaling.open = true if that is what you want",
            ),
        ]
