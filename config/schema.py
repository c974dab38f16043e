"""The settings tree: every option, its default, its unit and its reason.

A component is handed its section, never the tree. ``config/icebroker.toml`` shows the same
options for an operator; a test holds the two together.
"""

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from config.redis import RedisAddress, parse_redis_url
from config.tls import unusable
from config.values import (
    Addresses,
    Endpoint,
    Endpoints,
    EndpointText,
    ExternalAddresses,
    HostText,
    HttpUrlText,
    IceUrls,
    Networks,
    Origins,
    Passwords,
    PemFile,
    PortRange,
    PortRangeText,
    PreparedText,
    Seconds,
    Secrets,
    read_list,
)

MINIMUM_SECRET_BYTES = 16
MAKE_ONE = "make one with: openssl rand -base64 32"
TOO_SHORT = f"the secret is shorter than {MINIMUM_SECRET_BYTES} bytes; {MAKE_ONE}"
NOT_BUILT = "is not in this version of Icebroker yet (CHANGELOG.md says what is)"

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Duration = Annotated[Seconds, Field(gt=0)]


class Problem(NamedTuple):
    """Why a section cannot be used, and the key whose value is to be changed."""

    key: str
    text: str


def _is_aes_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) in {16, 32}
    except ValueError:
        return False


def _are_opposite(ends: Sequence[Endpoint]) -> bool:
    pairs = list(zip(ends[::2], ends[1::2], strict=False))
    return len(ends) == 2 * len(pairs) and all(
        one.host != other.host
        and one.port != other.port
        and (":" in one.host) == (":" in other.host)
        and not (one.is_wildcard or other.is_wildcard)
        for one, other in pairs
    )


class Section(BaseModel):
    """A part of the settings: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def contradictions(self) -> list[Problem]:
        """What is wrong between keys that are each right; such a section cannot be made."""
        return []

    def dangers(self) -> list[Problem]:
        """What forbids a service to start with these settings, though others may read them."""
        return []

    fixed: ClassVar[frozenset[str]] = frozenset()
    """Keys that only a restart can change."""

    def needs_restart(self, new: Self) -> list[Problem]:
        """What of ``new`` cannot be applied while a service runs with these settings."""
        return [
            Problem(key, "only a restart can change this; put it back, or restart")
            for key in sorted(self.fixed)
            if getattr(self, key) != getattr(new, key)
        ]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if problems := self.contradictions():
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError("setting", "{text}", {"text": text}),
                        loc=(key,),
                        input=None,
                    )
                    for key, text in problems
                ],
            )
        return self


class TurnSettings(Section):
    """The STUN/TURN relay."""

    fixed = frozenset(
        {
            "listen",
            "listen_tls",
            "listen_dtls",
            "proxy_protocol_from",
            "nat_discovery",
            "data_plane",
            "state_directory",
            "kernel_directory",
            "workers",
        }
    )

    listen: Endpoints = (Endpoint("0.0.0.0", 3478), Endpoint("::", 3478))  # noqa: S104 - a server
    """Addresses for STUN and TURN over UDP and TCP; a wildcard is each of the machine's."""

    listen_tls: Endpoints = ()
    """Addresses for TURN over TLS, for example "0.0.0.0:5349"; needs the two files below."""

    listen_dtls: Endpoints = ()
    """Addresses for TURN over DTLS."""

    tls_certificate: PemFile = None
    """PEM file with the certificate and its chain."""

    tls_key: PemFile = None
    """PEM file with the certificate's private key."""

    hostname: HostText = ""
    """The DNS name that clients reach the relay by; ICE URLs carry it (`turns:` needs one)."""

    realm: Annotated[PreparedText, Field(min_length=1, max_length=127)] = "icebroker"
    """The realm of the long-term credentials (RFC 8489 §9.2)."""

    proxy_protocol_from: Networks = ()
    """Load balancers in front of `listen` and `listen_tls`: whatever comes from these networks
    begins with a PROXY protocol v2 header, which names the client."""

    relay_addresses: Addresses = ()
    """Addresses to relay from; empty: the machine's own (loopback if it has no other)."""

    external_addresses: ExternalAddresses = ()
    """Public address in place of the relay address behind 1:1 NAT: "PUBLIC" or "PUBLIC/LOCAL"."""

    relay_ports: PortRangeText = PortRange(49152, 65535)
    """UDP ports to relay from, both ends included."""

    secret: Secrets = ()
    """Shared secret of the time-limited credentials, or a list of them while rotating (the first
    one mints, all are accepted). At least 16 bytes each."""

    users: Passwords = {}
    """Static users: name = password."""

    third_party_name: PreparedText = ""
    """What authorization servers call this relay; they seal tokens for that name (RFC 7635)."""

    third_party_keys: Passwords = {}
    """Keys shared with them, by key id, in Base64: 32 bytes for AES-256-GCM, 16 for AES-128-GCM."""

    auth_minimum: Literal["sha1", "sha256"] = "sha1"
    """`sha256` refuses clients that know only MD5 and HMAC-SHA1 (RFC 8489 §9.2): every browser."""

    open: bool = False
    """Allow a public address without `secret` or `users`: a relay for everyone. Don't."""

    allow_peers: Networks = ()
    """Networks to relay to although the safe defaults refuse them."""

    deny_peers: Networks = ()
    """Networks never to relay to; stronger than `allow_peers`."""

    tcp_allocations: bool = False
    """Let users have relayed addresses that TCP peers connect with (RFC 6062). No browser asks."""

    mobility: bool = False
    """Let clients take an allocation along when they change networks (RFC 8016)."""

    nat_discovery: Endpoints = ()
    """Two of this machine's addresses with another port each, for NAT behaviour discovery
    (RFC 5780); four, a pair of each family."""

    alternate_servers: Endpoints = ()
    """Other relays, by address, that clients over UDP and TCP are sent to (RFC 8489 §10)."""

    alternate_servers_tls: Endpoints = ()
    """The same for clients over TLS and DTLS."""

    alternate_domain: HostText = ""
    """The name in the certificates of `alternate_servers_tls`; empty: the one clients know."""

    redirect: Literal["full", "always"] = "full"
    """Which clients are sent there: those that find no room here or a relay that is draining, or
    all of them."""

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

    max_lifetime: Duration = 3600
    """The longest lifetime that an allocation is granted at a time, in seconds (RFC 8656 §7.2)."""

    max_bytes_per_second: Count = 0
    """Bytes of payload a second that one allocation may relay, each way; 0: no limit."""

    max_bytes_per_second_per_user: Count = 0
    """The same for all allocations of one user together; 0: no limit."""

    max_bytes_per_second_per_address: Count = 0
    """The same for all allocations of one client address (an IPv6 /64) together; 0: no limit."""

    max_bytes_per_second_in_all: Count = 0
    """The same for the whole relay; 0: no limit."""

    max_unauthenticated_per_address: Positive = 64
    """TCP and TLS connections of one address that have not proved who they are."""

    max_unproved_replies_per_second: Positive = 20
    """Replies a second to one address (an IPv6 /64) that has not proved to be itself, so that
    nobody is flooded through us; more than 20 may be needed where many clients share one."""

    max_bindings_per_second: Positive = 50
    """The same for STUN Binding responses."""

    first_request_timeout: Duration = 10
    """A TCP or TLS connection that has sent no valid request by then is closed, in seconds."""

    nonce_lifetime: Duration = 3600
    """How long a nonce is good; clients renew it unseen (438), in seconds."""

    data_plane: Literal["auto", "kernel", "userspace"] = "auto"
    """What carries relayed packets; `auto` takes the fastest plane that works here."""

    state_directory: str = ""
    """Folder where live allocations are recorded, so that they outlive a restart or a crash; empty:
    `$RUNTIME_DIRECTORY` (systemd sets it), or else they end with the process."""

    kernel_directory: str = "/run/icebroker/bpf"
    """Folder that keeps the kernel plane at work while the process restarts: a bpffs is mounted
    there unless it is in one."""

    workers: Positive = 1
    """Processes that share the listening addresses."""

    drain_timeout: Seconds = 30
    """How long live allocations may go on after SIGTERM before they are closed, in seconds."""

    def contradictions(self) -> list[Problem]:
        """Workers are for later; TLS and DTLS need their files."""
        found = []
        if self.workers != 1:
            found.append(Problem("workers", f"more than one process {NOT_BUILT}"))
        has_pair = self.tls_certificate and self.tls_key
        if self.listen_tls and not has_pair:
            found.append(Problem("listen_tls", "TLS needs tls_certificate and tls_key, PEM files"))
        if self.listen_dtls and not has_pair:
            text = "DTLS needs tls_certificate and tls_key, PEM files"
            found.append(Problem("listen_dtls", text))
        if not _are_opposite(self.nat_discovery):
            text = "wants pairs of addresses of one family that differ in host and in port"
            found.append(Problem("nat_discovery", text))
        found += self._redirect_problems()
        found += self._third_party_problems()
        for name, password in self.users.items():
            if not name or ":" in name:
                found.append(Problem("users", f"{name!r} is no user name: no colon, not empty"))
            if not password.get_secret_value():
                found.append(Problem("users", f"the password of {name!r} is empty"))
        return found

    def _third_party_problems(self) -> list[Problem]:
        found = [
            Problem("third_party_keys", f"{kid!r} is no Base64 of 16 or 32 bytes")
            for kid, key in self.third_party_keys.items()
            if not _is_aes_key(key.get_secret_value())
        ]
        if self.third_party_keys and not self.third_party_name:
            found.append(Problem("third_party_keys", "needs third_party_name"))
        return found

    def _redirect_problems(self) -> list[Problem]:
        found = [
            Problem(name, "wants addresses and ports that clients can reach")
            for name in ("alternate_servers", "alternate_servers_tls")
            if any(place.is_wildcard or not place.port for place in getattr(self, name))
        ]
        somewhere = self.alternate_servers or self.alternate_servers_tls
        if self.redirect == "always" and not somewhere:
            text = '"always" needs alternate_servers to send clients to'
            found.append(Problem("redirect", text))
        return found

    def dangers(self) -> list[Problem]:
        """Nothing to listen on or with; a relay that strangers can reach and use."""
        found = [Problem(*why) for why in unusable(self.tls_certificate, self.tls_key)]
        if self.listen_dtls and find_spec("OpenSSL") is None:
            text = "DTLS needs pyOpenSSL; install it with: pip install 'icebroker[dtls]'"
            found.append(Problem("listen_dtls", text))
        endpoints = (*self.listen, *self.listen_tls, *self.listen_dtls, *self.nat_discovery)
        if not endpoints:
            text = "listen, listen_tls and listen_dtls are all empty: nobody could come in"
            return [*found, Problem("listen", text)]
        if self.open or all(endpoint.is_loopback for endpoint in endpoints):
            return found
        if any(_is_short(secret) for secret in self.secret):
            return [*found, Problem("secret", TOO_SHORT)]
        if self.secret or self.users or self.third_party_keys:
            return found
        return [
            *found,
            Problem(
                "secret",
                "the relay is open to other machines, but neither turn.secret nor turn.users is "
                f"set: anyone could relay through this machine. Set turn.secret ({MAKE_ONE}), "
                "listen on 127.0.0.1 only, or set turn.open = true if that is what you want",
            ),
        ]


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
        {"listen", "pages", "max_queued_messages", "max_queued_bytes", "join_url", "webhook_url"}
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

    max_rooms_per_session: Positive = 8
    """Rooms that one session may be in at a time; a token may say less."""

    room_capacity: Positive = 64
    """Peers that a room holds; a token may say less."""

    join_url: HttpUrlText = ""
    """Where your back end decides who may come in (a signed POST), for those without a JWT."""

    join_cache: Seconds = 30
    """How long such a decision holds for the same token and room, in seconds; 0: ask each time."""

    webhook_url: HttpUrlText = ""
    """Where your back end is told what becomes of rooms and peers (signed POSTs, each at least
    once)."""

    webhook_secret: Secrets = ()
    """What these requests are signed with (Standard Webhooks; `whsec_…` is base64), or a list of
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
    """PeerJS clients that may reach each other; a token may say less."""

    drain_timeout: Seconds = 30
    """How long clients have to move elsewhere after SIGTERM, in seconds."""

    def contradictions(self) -> list[Problem]:
        """Half of a certificate; tokens that any page may use."""
        found = []
        if bool(self.tls_certificate) != bool(self.tls_key):
            given, missing = ("tls_certificate", "tls_key")[:: 1 if self.tls_certificate else -1]
            found.append(Problem(given, f"{missing} is missing: set both for HTTPS, or neither"))
        for key in ("join_url", "webhook_url"):
            if getattr(self, key) and not self.webhook_secret:
                text = f"webhook_secret is missing: requests are signed; {MAKE_ONE}"
                found.append(Problem(key, text))
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
        if any(_is_short(secret) for secret in self.token_secret):
            return [*found, Problem("token_secret", TOO_SHORT)]
        problems = filter(None, map(_bad_key, self.webhook_secret))
        found += [Problem("webhook_secret", why) for why in problems]
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


class RedisSettings(Section):
    """What many nodes share."""

    fixed = frozenset({"url", "prefix", "ca_certificate", "lease"})

    url: SecretStr = SecretStr("")
    """redis:// rediss:// redis+sentinel:// redis+cluster://; empty: the embedded broker. Secret,
    as it may hold a password."""

    prefix: Annotated[str, Field(pattern="^[a-z0-9-]{1,32}$")] = "icebroker"
    """What every key and channel begins with, in braces: one Redis may serve several clusters of
    nodes, each with a prefix of its own."""

    ca_certificate: PemFile = None
    """PEM file with the authority that signed Redis's certificate; empty: the system's."""

    lease: Annotated[Seconds, Field(ge=1, le=60)] = 8.0
    """Seconds after which a node that says nothing counts as dead, and its peers as suspended: a
    second more at most. The same for all nodes."""

    def address(self) -> RedisAddress | None:
        """Where Redis is; None for the embedded broker. Secret. :raises ValueError: nowhere."""
        return parse_redis_url(self.url.get_secret_value()) if self.url else None

    def contradictions(self) -> list[Problem]:
        """A URL that leads nowhere."""
        try:
            self.address()
        except ValueError as error:
            return [Problem("url", str(error))]
        return []


class AdminSettings(Section):
    """Metrics and health, for operators only."""

    fixed = frozenset({"listen"})

    listen: EndpointText = Endpoint("127.0.0.1", 9641)
    """Address of /metrics, /healthz and /readyz, and of the API and the operator's page."""

    token: SecretStr = SecretStr("")
    """Bearer token of the admin API, at least 16 bytes; empty: no API, and no operator's page."""

    probe_targets: IceUrls = ()
    """ICE URLs that `/probe?target=` tries as the doctor does, for Prometheus; needs `token`."""

    def contradictions(self) -> list[Problem]:
        """A token that can be guessed; probes for everyone."""
        found = [Problem("token", TOO_SHORT)] if self.token and _is_short(self.token) else []
        if self.probe_targets and not self.token:
            found.append(Problem("probe_targets", f"probes need admin.token; {MAKE_ONE}"))
        return found


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines to write."""

    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: for people on a terminal, JSON lines otherwise."""


class Settings(Section):
    """All sections together, as the configuration file has them."""

    turn: TurnSettings = TurnSettings()
    signaling: SignalingSettings = SignalingSettings()
    redis: RedisSettings = RedisSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()


def _is_short(secret: SecretStr) -> bool:
    return len(secret.get_secret_value().encode()) < MINIMUM_SECRET_BYTES


def _bad_key(secret: SecretStr) -> str:
    """Why a secret of webhooks cannot be used; empty: it can."""
    text = secret.get_secret_value()
    if text.startswith("whsec_"):
        try:
            base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            return "what follows whsec_ is not base64"
    return TOO_SHORT if _is_short(secret) else ""
