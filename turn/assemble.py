"""What the relay is made of, as its settings have it: one function a part."""

import base64
import hashlib
import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from config.section import StartError
from config.tenants import TenantSettings
from config.tls import expiry, server_context
from config.turn import TurnSettings
from turn.allocation.alternates import Alternates
from turn.allocation.clients import Clients
from turn.allocation.discovery import Discovery
from turn.allocation.model import Limits, TenantLimits
from turn.allocation.options import Options
from turn.allocation.policy import PolicyRules
from turn.auth.authenticate import Authenticator
from turn.auth.credentials import Credentials, Tenant
from turn.auth.third_party import ThirdParty
from turn.auth.users import Users
from turn.bandwidth import Rates
from turn.codec.integrity import Integrity
from turn.codec.values import Address, Family
from turn.kernel.plane import HELD, NullPlane, Plane, Unavailable
from turn.revoked import RevokedFile
from turn.state import State
from turn.transport.accepting import ALPN
from turn.transport.addresses import is_here, relay_candidates

if TYPE_CHECKING:
    from turn.transport.dtls import DtlsContext

log = structlog.get_logger("turn")


NO_CREDENTIALS: Mapping[str, Any] = {
    "secret": (),
    "users": {},
    "tenants": {},
    "third_party_keys": {},
    "user_url": "",
}


def authenticator(
    settings: TurnSettings, process_key: bytes, users: Users | None = None
) -> Authenticator:
    """Who may use the relay.

    :param process_key: makes nonces where there is no secret; the same one at each reload, so
        that clients do not notice it.
    :param users: what a back end has said of others, where one is asked.
    """
    if settings.stun_only:  # a secret may be there for signaling, which mints for other relays
        settings = settings.model_copy(update=NO_CREDENTIALS)
    static, secrets = _plain(settings)
    tenants = {name: Tenant(*_plain(each)) for name, each in settings.tenants.items()}
    return Authenticator(
        settings.realm,
        Credentials(settings.realm, static, secrets, tenants),
        _nonce_key(secrets, tenants) or process_key,
        settings.nonce_lifetime,
        Integrity[settings.auth_minimum.upper()],
        _third_party(settings),
        users if settings.user_url else None,
    )


def _plain(who: TurnSettings | TenantSettings) -> tuple[dict[str, str], list[str]]:
    """Users with their passwords, and secrets."""
    users = {name: password.get_secret_value() for name, password in who.users.items()}
    return users, [secret.get_secret_value() for secret in who.secret]


def _nonce_key(secrets: Sequence[str], tenants: Mapping[str, Tenant]) -> bytes:
    """What makes nonces, so that they are good after a restart and on other nodes too.

    Without a secret of the relay's it is made of all tenants' together: one that knew it could
    authenticate in the name of an address that is not its own. Where a reload changes them, each
    client gets a new nonce with its next request (438).

    :returns: b"" where there is no secret.
    """
    if secrets:
        return secrets[0].encode()
    firsts = [f"{name}:{each.secrets[0]}" for name, each in sorted(tenants.items()) if each.secrets]
    return hashlib.sha256("\0".join(firsts).encode()).digest() if firsts else b""


def _third_party(settings: TurnSettings) -> ThirdParty | None:
    if not settings.third_party_keys:
        return None
    return ThirdParty(
        settings.third_party_name,
        {
            kid: base64.b64decode(key.get_secret_value())
            for kid, key in settings.third_party_keys.items()
        },
    )


def limits(settings: TurnSettings) -> Limits:
    """How much anyone may have."""
    return Limits(
        allocations_per_user=settings.max_allocations_per_user,
        allocations_per_address=settings.max_allocations_per_address,
        allocations=settings.max_allocations,
        permissions=settings.max_permissions,
        channels=settings.max_channels,
        lifetime=settings.max_lifetime,
        rates=Rates(
            settings.max_bytes_per_second,
            settings.max_bytes_per_second_per_user,
            settings.max_bytes_per_second_per_address,
            settings.max_bytes_per_second_in_all,
            {
                name: tenant.max_bytes_per_second
                for name, tenant in settings.tenants.items()
                if tenant.max_bytes_per_second
            },
        ),
        tenants={
            name: TenantLimits(tenant.max_allocations, tenant.max_allocations_per_user)
            for name, tenant in settings.tenants.items()
        },
    )


def options(settings: TurnSettings, external: Sequence[tuple[str, str]]) -> Options:
    """What is switched on beyond RFC 8656."""
    return Options(
        mobility=settings.mobility,
        discovery=_discovery(settings, external),
        alternates=_alternates(settings, external),
        clients=_clients(settings),
        family_of_client=settings.default_address_family == "client",
    )


def _clients(settings: TurnSettings) -> Clients | None:
    if not settings.allow_clients and not settings.deny_clients:
        return None
    return Clients(settings.allow_clients, settings.deny_clients)


def _alternates(settings: TurnSettings, external: Sequence[tuple[str, str]]) -> Alternates | None:
    plain = [Address(*place) for place in settings.alternate_servers]
    secure = [Address(*place) for place in settings.alternate_servers_tls]
    if not plain and not secure:
        return None
    return Alternates(
        plain, secure, settings.alternate_domain, always=settings.redirect == "always",
        public_of={local: public for public, local in external},
    )  # fmt: skip


def _discovery(settings: TurnSettings, external: Sequence[tuple[str, str]]) -> Discovery | None:
    if not settings.nat_discovery:
        return None
    ends = [Address(*endpoint) for endpoint in settings.nat_discovery]
    pairs = list(zip(ends[::2], ends[1::2], strict=True))
    return Discovery(pairs, {local: public for public, local in external})


def udp_endpoints(settings: TurnSettings) -> list[tuple[str, int]]:
    """Where to listen for UDP."""
    listen = [(endpoint.host, endpoint.port) for endpoint in settings.udp]
    found = _discovery(settings, ())
    return [*listen, *(found.addresses if found else ())]


class StreamPlace(NamedTuple):
    """Where to listen for connections, and for which: at least one of the two."""

    host: str
    port: int
    tcp: bool
    tls: bool


def stream_places(settings: TurnSettings) -> list[StreamPlace]:
    """Where clients connect to; an address that is named for both has one socket for both."""
    secure = settings.listen_tls
    plain = [place for place in settings.tcp if not place.port or place not in secure]
    both = {place for place in settings.tcp if place.port and place in secure}
    return [
        *(StreamPlace(*place, tcp=True, tls=False) for place in plain),
        *(StreamPlace(*place, tcp=place in both, tls=True) for place in secure),
    ]


def state_folder(settings: TurnSettings, environment: Mapping[str, str] = os.environ) -> str:
    """Where allocations outlive the process; "": nowhere."""
    # systemd gives one folder for each name in RuntimeDirectory; the first is for this.
    given = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return settings.state_directory or given


def state(settings: TurnSettings, environment: Mapping[str, str] = os.environ) -> State | None:
    """The folder where allocations outlive the process, if there is one."""
    folder = state_folder(settings, environment)
    return State(Path(folder)) if folder else None


def revoked(settings: TurnSettings) -> RevokedFile | None:
    """Where revocations outlive the process, if there is a folder for such things."""
    folder = state_folder(settings)
    return RevokedFile(Path(folder) / "revoked") if folder else None


def open_state(state: State) -> None:
    """Have the folder. :raises StartError: it is not usable, or another process has it."""
    try:
        state.open()
    except BlockingIOError:
        raise StartError("turn.state_directory: another relay has it") from None
    except OSError as error:
        raise StartError(f"turn.state_directory: {error}") from None


def data_plane(settings: TurnSettings, *, keep: bool = False) -> Plane:
    """The data plane beside user space. :raises StartError: none, although it is asked for.

    :param keep: have what the kernel carries outlive this process.
    """
    if settings.data_plane == "userspace" or settings.stun_only:
        if keep:  # the last process may have had the kernel plane
            from turn.kernel.loader import clean  # noqa: PLC0415 - as below

            clean(Path(settings.kernel_directory))
        return NullPlane("as configured")
    from turn.kernel.borrowed import BorrowedPlane  # noqa: PLC0415 - what user space never needs
    from turn.kernel.carrier import KernelPlane  # noqa: PLC0415 - as above

    directory = Path(settings.kernel_directory)

    def borrow() -> KernelPlane:
        return KernelPlane(directory, settings.kernel_hook, keep=keep, lent=True)

    try:
        plane = KernelPlane(directory, settings.kernel_hook, keep=keep)
    except Unavailable as error:
        if settings.data_plane == "kernel":
            raise StartError(f'turn.data_plane is "kernel", but {error}') from None
        log.info("data plane", plane="userspace", reason=str(error))
        # What another relay has is its own, also while it is being restarted.
        none = NullPlane(str(error))
        return none if HELD in str(error) else BorrowedPlane(none, borrow)
    log.info("data plane", plane=plane.name, reason=plane.reason)
    return BorrowedPlane(plane, borrow) if plane.is_lent else plane


def policy_rules(
    settings: TurnSettings, reserved_ports: Iterable[int], external: Sequence[tuple[str, str]]
) -> PolicyRules:
    """Which peers may be relayed to."""
    own = {endpoint.port for endpoint in settings.doors}
    return PolicyRules(
        allow=settings.allow_peers,
        deny=settings.deny_peers,
        only_allowed=settings.only_allowed_peers,
        open_private=settings.open_private_peers,
        reserved_ports=frozenset(own | set(reserved_ports)),
        external=tuple(external),
    )


def relay_addresses(settings: TurnSettings, own: list[str]) -> dict[Family, list[str]]:
    """The addresses to relay from, by family, the default one first.

    :param own: the machine's addresses.
    """
    if settings.relay_addresses:
        return _by_family(settings.relay_addresses)
    if settings.doors and all(endpoint.is_loopback for endpoint in settings.doors):
        # Nobody outside can ask for an allocation, so nobody outside needs to be reached.
        return _by_family(sorted({endpoint.host for endpoint in settings.doors}))
    return relay_candidates(own)


def external_pairs(
    settings: TurnSettings, relays: Mapping[Family, Sequence[str]]
) -> list[tuple[str, str]]:
    """The (public, local) pairs of 1:1 NAT; a public address alone stands for the default."""
    pairs = []
    for public, local in settings.external_pairs:
        family = Family.IPV6 if ":" in public else Family.IPV4
        hosts = [local] if local else relays[family][:1]
        pairs += [(public, host) for host in hosts]
    return pairs


def misplaced(settings: TurnSettings, own: list[str]) -> list[str]:
    """Addresses to relay from that are not here, and what may be meant; a sentence each."""
    relays = relay_addresses(settings, own)
    hosts = {host for found in relays.values() for host in found}
    found = [
        f"turn.relay_addresses: this machine has no {host} (a public address behind 1:1 NAT goes "
        "into turn.external_addresses)"
        for host in settings.relay_addresses
        if not is_here(host)
    ]
    found += [
        f"turn.external_addresses: {public} is for {local}, from which nothing is relayed"
        for public, local in settings.external_pairs
        if local and local not in hosts
    ]
    return found


def warn_misplaced(settings: TurnSettings, own: list[str]) -> None:
    """Tell the log of them: they may come later, and until then nobody gets one."""
    for text in misplaced(settings, own):
        log.warning("nothing is relayed from there", problem=text)


def refuse_misplaced(old: TurnSettings, new: TurnSettings, own: list[str]) -> None:
    """See that a change names no address in vain. :raises StartError: it does.

    What is misplaced already stays so: an address may be another node's for now (a virtual one).
    """
    before = misplaced(old, own)
    added = [text for text in misplaced(new, own) if text not in before]
    if added:
        raise StartError("; ".join(added))


def unplaced(settings: TurnSettings) -> list[str]:
    """What keeps a relay from serving, of its addresses: that not one of them is here."""
    asked = settings.relay_addresses
    if not asked or any(map(is_here, asked)):
        return []
    return [f"this machine has no {', '.join(asked)} to relay from (turn.relay_addresses)"]


def public_relay_addresses(settings: TurnSettings, own: list[str]) -> list[str]:
    """The addresses that peers see packets come from, as clients are told."""
    relays = relay_addresses(settings, own)
    public_of = {local: public for public, local in external_pairs(settings, relays)}
    return [public_of.get(host, host) for hosts in relays.values() for host in hosts]


class Certificate:
    """The relay's certificate: a TLS context, and when it ends."""

    def __init__(self, settings: TurnSettings) -> None:
        """Load it. :raises StartError: the files are not usable."""
        self.context = server_context()
        self.context.set_alpn_protocols(ALPN)
        self.expires = 0.0
        """Unix time in seconds."""
        self._dtls: DtlsContext | None = None
        self.load(settings)

    def dtls(self, settings: TurnSettings) -> "DtlsContext":
        """The same for DTLS. :raises StartError: as above."""
        from turn.transport.dtls import DtlsContext  # noqa: PLC0415 - an extra, as OpenSSL is

        if settings.tls_certificate is None or settings.tls_key is None:
            raise StartError("turn.listen_dtls: DTLS needs turn.tls_certificate and turn.tls_key")
        try:
            self._dtls = DtlsContext(settings.tls_certificate, settings.tls_key)
        except OSError as error:
            raise StartError(f"turn.tls_certificate, turn.tls_key: {error}") from None
        return self._dtls

    def load(self, settings: TurnSettings) -> None:
        """Use these files for every handshake from now on. :raises StartError: as above."""
        certificate, key = settings.tls_certificate, settings.tls_key
        if certificate is None or key is None:
            raise StartError("turn.listen_tls: TLS needs turn.tls_certificate and turn.tls_key")
        try:
            # Where the files do not fit, the context in use must not have half of them.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            self.expires = expiry(certificate)
            self.context.load_cert_chain(certificate, key)
            if self._dtls is not None:
                self._dtls.load(certificate, key)
        except (OSError, ValueError) as error:
            raise StartError(f"turn.tls_certificate, turn.tls_key: {error}") from None


def _by_family(hosts: Iterable[str]) -> dict[Family, list[str]]:
    found: dict[Family, list[str]] = {family: [] for family in Family}
    for host in hosts:
        found[Family.IPV6 if ":" in host else Family.IPV4].append(host)
    return found
