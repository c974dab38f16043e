"""The settings of the relay."""

import base64
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field

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
from config.tenants import Tenants, short_secrets, tenant_problems, user_problems
from config.tls import unusable
from config.values import (
    Addresses,
    Endpoint,
    Endpoints,
    ExternalAddress,
    ExternalAddresses,
    HostText,
    HttpUrlText,
    Networks,
    Passwords,
    PemFile,
    PortRange,
    PortRangeText,
    PreparedText,
    Seconds,
    Secrets,
    StunServer,
)


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


class TurnSettings(Section):
    """The STUN/TURN relay."""

    fixed = frozenset(
        {
            "listen",
            "listen_udp",
            "listen_tcp",
            "listen_tls",
            "listen_dtls",
            "proxy_protocol_from",
            "stun_only",
            "nat_discovery",
            "data_plane",
            "state_directory",
            "kernel_directory",
            "kernel_hook",
            "workers",
        }
    )

    listen: Endpoints = (Endpoint("0.0.0.0", 3478), Endpoint("::", 3478))  # noqa: S104 - a server
    """Addresses for STUN and TURN over UDP and TCP; a wildcard is each of the machine's."""

    listen_udp: Endpoints = ()
    """Addresses for UDP alone: beside TLS on the same port, or where there is to be no TCP."""

    listen_tcp: Endpoints = ()
    """The same for TCP."""

    listen_tls: Endpoints = ()
    """Addresses for TURN over TLS, for example "0.0.0.0:5349"; needs the two files below. One that
    is for TCP as well serves both: a client's first byte says which."""

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
    """Load balancers in front of all these but `listen_dtls`: whatever comes from these networks
    begins with a PROXY protocol v2 header, which names the client."""

    relay_addresses: Addresses = ()
    """Addresses to relay from; empty: the machine's own (loopback if it has no other)."""

    external_addresses: ExternalAddresses = ()
    """Public address in place of the relay address behind 1:1 NAT: "PUBLIC" or "PUBLIC/LOCAL"; or
    "stun:HOST:PORT", a STUN server that is asked for it about once a minute."""

    default_address_family: Literal["ipv4", "client"] = "ipv4"
    """What a client gets that names no family, as browsers do: `ipv4` (RFC 8656 §7.2), or the one
    that the client comes by, and where that cannot be had the other."""

    relay_ports: PortRangeText = PortRange(49152, 65535)
    """UDP ports to relay from, both ends included."""

    secret: Secrets = ()
    """Shared secret of the time-limited credentials, or a list of them while rotating (the first
    one mints, all are accepted). At least 16 bytes each."""

    users: Passwords = {}  # noqa: RUF012 - pydantic copies it
    """Static users: name = password."""

    tenants: Tenants = {}  # noqa: RUF012 - as above
    """Applications that share the relay, by name, each with credentials and limits of its own:
    `secret`, `users`, `max_allocations`, `max_allocations_per_user`, `max_bytes_per_second`."""

    third_party_name: PreparedText = ""
    """What authorization servers call this relay; they seal tokens for that name (RFC 7635)."""

    third_party_keys: Passwords = {}  # noqa: RUF012 - as above
    """Keys shared with them, by key id, in Base64: 32 bytes for AES-256-GCM, 16 for AES-128-GCM."""

    user_url: HttpUrlText = ""
    """Where your back end says who a client is (a signed POST) whose name neither `secret` nor
    `users` nor a token knows."""

    user_cache: Seconds = 60
    """How long such an answer holds, in seconds; 0: ask at each allocation."""

    webhook_url: HttpUrlText = ""
    """Where your back end is told how allocations begin and end (signed POSTs, each at least
    once)."""

    webhook_secret: Secrets = ()
    """What requests to your back end are signed with (Standard Webhooks: `whsec_` and base64), or
    a list of such while rotating: each makes a signature. At least 16 bytes each."""

    webhook_timeout: Duration = 3
    """How long your back end may take to answer, in seconds."""

    auth_minimum: Literal["sha1", "sha256"] = "sha1"
    """`sha256` refuses clients that know only MD5 and HMAC-SHA1 (RFC 8489 §9.2): every browser."""

    stun_only: bool = False
    """Tell clients their address and relay for nobody: credentials are neither needed nor known."""

    allow_peers: Networks = ()
    """Networks to relay to although the safe defaults refuse them."""

    only_allowed_peers: bool = False
    """Relay to `allow_peers` and to nowhere else, also not from one client to another."""

    deny_peers: Networks = ()
    """Networks never to relay to; stronger than `allow_peers`."""

    allow_clients: Networks = ()
    """Networks that clients may come from; empty: every one."""

    deny_clients: Networks = ()
    """Networks that clients may not come from, whatever credentials they have; stronger than
    `allow_clients`."""

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
    """Bytes of payload a second that one allocation may relay, each way; a packet counts as 64 at
    least. 0: no limit."""

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

    max_tls_handshakes_per_second: Positive = 50
    """TLS and DTLS handshakes of one address (an IPv6 /64); over it one is closed before it costs
    that. More may be needed where many clients share an address, as behind a load balancer."""

    first_request_timeout: Duration = 10
    """A TCP or TLS connection that has sent no valid request by then is closed, in seconds."""

    nonce_lifetime: Duration = 3600
    """How long a nonce is good; clients renew it unseen (438), in seconds."""

    data_plane: Literal["auto", "kernel", "userspace"] = "auto"
    """What carries relayed packets; `auto` takes the fastest plane that works here."""

    state_directory: str = ""
    """Folder where live allocations are recorded, so that they outlive a restart or a crash, and
    without Redis the users that were revoked; empty: `$RUNTIME_DIRECTORY` (systemd sets it), or
    else both end with the process."""

    kernel_directory: str = "/run/icebroker/bpf"
    """Folder that keeps the kernel plane at work while the process restarts: a bpffs is mounted
    there unless it is in one."""

    kernel_hook: Literal["auto", "xdp", "tc"] = "auto"
    """Where the kernel plane meets packets: `auto` takes XDP at network cards where a self-test
    passes, and tc elsewhere; `xdp` tries it at virtual devices too; `tc` leaves drivers alone."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the listening addresses, each on a core of its own."""

    drain_timeout: Seconds = 30
    """How long live allocations may go on after SIGTERM before they are closed, in seconds."""

    def secret_of(self, tenant: str = "") -> str:
        """What makes credentials of a tenant's users, or of those without one; "": nothing."""
        secrets = self.tenants[tenant].secret if tenant else self.secret
        return secrets[0].get_secret_value() if secrets else ""

    @property
    def udp(self) -> Endpoints:
        """Where clients come by UDP."""
        return (*self.listen, *self.listen_udp)

    @property
    def tcp(self) -> Endpoints:
        """Where clients come by plain TCP."""
        return (*self.listen, *self.listen_tcp)

    @property
    def external_pairs(self) -> tuple[ExternalAddress, ...]:
        """The external addresses that are written down."""
        return tuple(e for e in self.external_addresses if isinstance(e, ExternalAddress))

    @property
    def external_servers(self) -> tuple[StunServer, ...]:
        """The STUN servers that are asked for the others, in order."""
        return tuple(e for e in self.external_addresses if isinstance(e, StunServer))

    @property
    def doors(self) -> Endpoints:
        """Where clients come by any transport."""
        plain = (*self.listen, *self.listen_udp, *self.listen_tcp)
        return (*plain, *self.listen_tls, *self.listen_dtls)

    def contradictions(self) -> list[Problem]:
        """What several processes cannot do; a port for two; TLS without its files; wrong users."""
        found = self._not_with_workers() + self._taken_twice()
        for key in ("user_url", "webhook_url"):
            found += unsigned(key, getattr(self, key), self.webhook_secret)
        has_pair = self.tls_certificate and self.tls_key
        if self.listen_tls and not has_pair:
            found.append(Problem("listen_tls", "TLS needs tls_certificate and tls_key, PEM files"))
        if self.listen_dtls and not has_pair:
            text = "DTLS needs tls_certificate and tls_key, PEM files"
            found.append(Problem("listen_dtls", text))
        if not _are_opposite(self.nat_discovery):
            text = "wants pairs of addresses of one family that differ in host and in port"
            found.append(Problem("nat_discovery", text))
        if any(not network.prefixlen for network in self.proxy_protocol_from):
            text = "names everybody, and whoever sends a header is whom it says; name the proxies"
            found.append(Problem("proxy_protocol_from", text))
        if self.only_allowed_peers and not self.allow_peers:
            text = "needs allow_peers: without them there is nobody to relay to"
            found.append(Problem("only_allowed_peers", text))
        found += self._redirect_problems()
        found += self._third_party_problems()
        return found + self._user_problems()

    def _user_problems(self) -> list[Problem]:
        names = {"users": self.users, "third_party_keys": self.third_party_keys}
        return user_problems(self.users) + tenant_problems(self.tenants, self.secret, names)

    def _not_with_workers(self) -> list[Problem]:
        """What several processes cannot do together."""
        if self.workers == 1 or self.data_plane != "kernel":
            return []
        text = (
            "the kernel relays UDP on all cores by itself, for one process; set workers = 1, "
            'or data_plane = "auto" where most clients come over TCP and TLS'
        )
        return [Problem("data_plane", text)]

    def _taken_twice(self) -> list[Problem]:
        """Addresses for DTLS that are for plain UDP already; a port 0 is another one each time."""
        return [
            Problem(
                "listen_dtls",
                f"{place} is taken for UDP by listen or listen_udp; where only TCP is meant there, "
                "write listen_tcp",
            )
            for place in self.listen_dtls
            if place.port and place in self.udp
        ]

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
        """Nothing to listen on or with; a relay that strangers can reach, and who knows who use."""
        found = [Problem(*why) for why in unusable(self.tls_certificate, self.tls_key)]
        found += bad_keys(self.webhook_secret)
        if self.listen_dtls and find_spec("OpenSSL") is None:
            text = "DTLS needs pyOpenSSL; install it with: pip install 'icebroker[dtls]'"
            found.append(Problem("listen_dtls", text))
        endpoints = (*self.doors, *self.nat_discovery)
        if not endpoints:
            text = "listen, listen_udp, listen_tcp, listen_tls and listen_dtls are all empty"
            text += ": nobody could come in"
            return [*found, Problem("listen", text)]
        if self.stun_only or all(endpoint.is_loopback for endpoint in endpoints):
            return found
        if any(is_short(secret) for secret in self.secret):
            found.append(Problem("secret", TOO_SHORT))
        found += short_secrets(self.tenants)
        known = self.secret or self.users or self.third_party_keys or self.tenants
        if known or self.user_url:
            return found
        return [
            *found,
            Problem(
                "secret",
                "other machines can reach the relay, but neither turn.secret nor turn.users is "
                f"set, so nobody could use it. Set turn.secret ({MAKE_ONE}), or turn.stun_only = "
                "true for a server that relays nothing",
            ),
        ]
