"""The settings tree: every option, its default, its unit and its reason.

A component is handed its section, never the tree. ``config/icebroker.toml`` shows the same
options for an operator; a test holds the two together.
"""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from config.redis import RedisAddress, RedisTls, parse_redis_url
from config.section import MAKE_ONE, TOO_SHORT, Problem, Section, is_short
from config.signaling import SignalingSettings
from config.tls import unusable, unusable_authority
from config.turn import TurnSettings
from config.values import Endpoint, Endpoints, PemFile, ProbeUrls, Seconds


class RedisSettings(Section):
    """What many nodes share."""

    fixed = frozenset(
        {
            "url", "sentinel_username", "sentinel_password", "prefix", "ca_certificate",
            "tls_certificate", "tls_key", "lease",
        }
    )  # fmt: skip

    url: SecretStr = SecretStr("")
    """redis:// rediss:// redis+sentinel:// redis+cluster://; empty: the embedded broker. Secret,
    as it may hold a password."""

    sentinel_username: str = ""
    """Whom the Sentinels know us as, where they have users of their own; needs
    `sentinel_password`."""

    sentinel_password: SecretStr = SecretStr("")
    """Of the Sentinels, where it is another one than Redis's. Empty: nobody has to say who asks, or
    they know the user and the password of `url`, or the password alone."""

    prefix: Annotated[str, Field(pattern="^[a-z0-9-]{1,32}$")] = "icebroker"
    """What every key and channel begins with, in braces: one Redis may serve several clusters of
    nodes, each with a prefix of its own."""

    ca_certificate: PemFile = None
    """PEM file with the authority that signed Redis's certificate; empty: the system's."""

    tls_certificate: PemFile = None
    """PEM file with the certificate that we show Redis, where it asks for one (by its own default
    it does: tls-auth-clients), with the chain; read at each connection."""

    tls_key: PemFile = None
    """PEM file with its private key."""

    lease: Annotated[Seconds, Field(ge=1, le=60)] = 8.0
    """Seconds after which a node that says nothing counts as dead, and its peers as suspended: a
    second more at most. The same for all nodes."""

    def address(self) -> RedisAddress | None:
        """Where Redis is; None for the embedded broker. Secret. :raises ValueError: nowhere."""
        if not self.url:
            return None
        sentinel = self.sentinel_username, self.sentinel_password.get_secret_value()
        return parse_redis_url(self.url.get_secret_value())._replace(sentinel=sentinel)

    def tls(self) -> RedisTls:
        """What a connection over TLS begins with."""
        return RedisTls(self.ca_certificate, self.tls_certificate, self.tls_key)

    def contradictions(self) -> list[Problem]:
        """A URL that leads nowhere; half of a certificate, or what nothing would use."""
        found = []
        if bool(self.tls_certificate) != bool(self.tls_key):
            given, missing = ("tls_certificate", "tls_key")[:: 1 if self.tls_certificate else -1]
            found.append(Problem(given, f"{missing} is missing: set both, or neither"))
        try:
            address = self.address()
        except ValueError as error:
            return [Problem("url", str(error)), *found]
        if self.sentinel_username and not self.sentinel_password:
            found.append(Problem("sentinel_username", "it needs sentinel_password"))
        if self.sentinel_password and (address is None or address.kind != "sentinel"):
            text = "url names no Sentinels; write redis+sentinel://HOST,HOST/SERVICE there"
            found.append(Problem("sentinel_password", text))
        if address is not None and not address.tls and any(self.tls()):
            text = "ca_certificate and tls_certificate are for TLS; write rediss://, or rediss+…://"
            found.append(Problem("url", text))
        return found

    def dangers(self) -> list[Problem]:
        """Files that no connection can begin with."""
        pair = unusable(self.tls_certificate, self.tls_key)
        authority = unusable_authority("ca_certificate", self.ca_certificate)
        return [Problem(*why) for why in (*pair, *authority)]


class AdminSettings(Section):
    """Metrics and health, for operators only."""

    fixed = frozenset({"listen"})

    listen: Annotated[Endpoints, Field(min_length=1)] = (Endpoint("127.0.0.1", 9641),)
    """Addresses of /metrics, /healthz and /readyz, and of the API and the operator's page."""

    token: SecretStr = SecretStr("")
    """Bearer token of the admin API, at least 16 bytes; empty: no API, and no operator's page."""

    probe_targets: ProbeUrls = ()
    """URLs of relays (`turn:…`) and of signaling (`https:…`) that `/probe?target=` tries as the
    doctor does, for Prometheus; needs `token`."""

    def contradictions(self) -> list[Problem]:
        """A token that can be guessed; probes for everyone."""
        found = [Problem("token", TOO_SHORT)] if self.token and is_short(self.token) else []
        if self.probe_targets and not self.token:
            found.append(Problem("probe_targets", f"probes need admin.token; {MAKE_ONE}"))
        return found


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines to write."""

    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: for people on a terminal, JSON lines otherwise."""

    allocations: bool = False
    """A line as each allocation of the relay begins and ends: the user, the client's address, the
    relayed addresses, the bytes; whatever `level` is."""


class Settings(Section):
    """All sections together, as the configuration file has them."""

    turn: TurnSettings = TurnSettings()
    signaling: SignalingSettings = SignalingSettings()
    redis: RedisSettings = RedisSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()

    def contradictions(self) -> list[Problem]:
        """Users of a tenant that cannot have any."""
        name = self.signaling.ice_tenant
        if not name or (name in self.turn.tenants and self.turn.tenants[name].secret):
            return []
        text = f"{name!r} is none of turn.tenants that has a secret to make credentials with"
        return [Problem("signaling", text, ("ice_tenant",))]
