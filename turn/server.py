"""The composition root of the relay: the one place that wires it; start, drain, stop."""

import asyncio
import resource
import secrets
import ssl
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog
from cryptography import x509

from config.schema import TurnSettings
from turn.allocation.allocator import Parts
from turn.allocation.engine import Engine
from turn.allocation.model import Limits
from turn.allocation.policy import PeerPolicy, PolicyRules
from turn.allocation.table import AllocationTable
from turn.auth.authenticate import Authenticator
from turn.auth.credentials import Credentials
from turn.bandwidth import Rates
from turn.codec.integrity import Integrity
from turn.codec.values import Address, Family
from turn.kernel.carrier import KernelPlane
from turn.kernel.plane import Carried, NullPlane, Plane, Unavailable
from turn.metrics import Gauges, TurnCollector
from turn.relay.forward import Forwarder
from turn.relay.poll import Poller
from turn.relay.ports import RelayPorts
from turn.routes import FiveTuple, Route, RouteTable
from turn.stats import Stats
from turn.transport.addresses import AddressWatch, local_addresses, relay_candidates
from turn.transport.limits import ConnectionLimit, ReplyLimit
from turn.transport.listeners import Listeners, Listening
from turn.transport.stream import StreamShared
from turn.transport.udp import Shared

log = structlog.get_logger("turn")

TICK = 1.0
"""Seconds between looks at what has expired."""
DRAIN_LOOK = 0.1
"""Seconds between looks at what is left while draining."""
SWEEP_TICKS = 10
"""Ticks between looks at connections without a purpose."""


class StartError(Exception):
    """The relay cannot start as it is set up; the message says what to change."""


class TurnService:
    """The relay of this process."""

    name = "turn"

    def __init__(self, settings: TurnSettings, reserved_ports: Iterable[int] = ()) -> None:
        """Wire the relay; nothing is opened before ``start``.

        :param reserved_ports: ports of our other services on this machine; never relayed to.
        """
        self._settings = settings
        self._addresses = local_addresses()
        self.stats = stats = Stats()
        self._routes = RouteTable(stats)
        self._poller = Poller()
        limits = _limits(settings)
        table = AllocationTable(limits, stats)
        external = self._external()
        self.policy = PeerPolicy(
            _rules(settings, reserved_ports, external),
            self._addresses,
            table.is_live_relay,
            table.is_live_tcp_relay,
        )
        self._forwarder = Forwarder(stats, self._route_to)
        self._ports = RelayPorts(
            settings.relay_ports,
            self._relay_addresses(),
            {local: public for public, local in external},
            (self._poller, self._forwarder),
            secrets.randbelow,
        )
        self._ports.tcp = settings.tcp_allocations
        parts = Parts(
            self.policy, table, self._routes, self._ports, limits, stats, secrets.token_bytes
        )
        self._engine = Engine(_authenticator(settings), parts)
        common = (self._engine, self._forwarder, self._routes, stats)
        self._listeners = Listeners(
            [(endpoint.host, endpoint.port) for endpoint in settings.listen],
            Shared(
                *common,
                self._poller,
                replies=ReplyLimit(settings.max_unproved_replies_per_second),
                bindings=ReplyLimit(settings.max_bindings_per_second),
            ),
            StreamShared(
                *common,
                strangers=ConnectionLimit(settings.max_unauthenticated_per_address),
                first_request_timeout=settings.first_request_timeout,
            ),
        )
        self._watch = AddressWatch(self._follow_addresses)
        self._plane: Plane = NullPlane("not started")
        self._certificate_expiry: float | None = None
        self._ticker: asyncio.Task[None] | None = None
        self.collector = TurnCollector(
            stats,
            self._routes,
            Gauges(
                lambda: len(table),
                lambda: self.ports_in_use,
                lambda: (self._ports.size, self._ports.free),
                lambda: self._certificate_expiry,
                self._carried,
            ),
        )

    @property
    def draining(self) -> bool:
        """Whether new allocations are turned away."""
        return self._engine.draining

    @property
    def ports_in_use(self) -> int:
        """Relay ports that are open now."""
        return self._ports.in_use

    def _carried(self) -> Carried:
        # The plane is opened by ``start``, after the collector was made.
        return self._plane.carried()

    @property
    def plane(self) -> str:
        """What carries packets where it can: ``kernel`` or ``userspace``."""
        return self._plane.name

    @property
    def plane_reason(self) -> str:
        """Why it is that plane, or where it works."""
        return self._plane.reason

    @property
    def addresses(self) -> list[Listening]:
        """Where it listens, once started."""
        return self._listeners.listening

    @property
    def relay_addresses(self) -> list[str]:
        """The addresses that peers see packets come from, as clients are told."""
        public_of = {local: public for public, local in self._external()}
        hosts = [host for hosts in self._relay_addresses().values() for host in hosts]
        return [public_of.get(host, host) for host in hosts]

    async def start(self) -> None:
        """Open the sockets and begin to serve.

        :raises StartError: a file is not usable, there is no address to relay from, or no kernel
            plane although it is asked for.
        :raises ListenError: an address cannot be listened on.
        """
        settings = self._settings
        if not self._ports.families:
            raise StartError("turn.relay_addresses: this machine has no address to relay from")
        tls = self._tls_context() if settings.listen_tls else None
        _raise_descriptor_limit()
        loop = asyncio.get_running_loop()
        self._plane = _open_plane(settings.data_plane)
        self._routes.observe(self._plane)
        self._plane.start(loop)
        self._poller.start(loop)
        try:
            self._listeners.open_udp(self._addresses)
            for endpoint in settings.listen:
                await self._listeners.open_stream(*endpoint, tls=None)
            for endpoint in settings.listen_tls:
                await self._listeners.open_stream(*endpoint, tls=tls)
        except OSError:
            await self._listeners.close()
            self._poller.stop(loop)
            self._plane.stop()
            raise
        self.policy.reserve_ports(place.port for place in self.addresses)
        self._watch.start()
        self._ticker = loop.create_task(self._tick())

    def ready(self) -> list[str]:
        """What keeps the relay from being sent clients; empty: nothing."""
        problems = []
        if self._ticker is None or self._ticker.done():
            problems.append("not running")
        if self.draining:
            problems.append("draining")
        return problems

    async def drain(self, seconds: float) -> None:
        """Turn new allocations away and wait until the live ones have ended.

        :param seconds: the longest to wait; what lives longer is closed by ``stop``.
        """
        self._engine.draining = True
        log.info("draining", allocations=len(self._engine.table), seconds=seconds)
        deadline = time.monotonic() + seconds
        while len(self._engine.table) and time.monotonic() < deadline:  # noqa: ASYNC110 - the core knows no events
            await asyncio.sleep(DRAIN_LOOK)

    async def stop(self) -> None:
        """Close every allocation, connection and socket."""
        if self._ticker is None:
            return
        self._ticker.cancel()
        self._ticker = None
        self._watch.stop()
        await self._listeners.close()
        self._engine.close_all()
        self._poller.stop(asyncio.get_running_loop())
        self._plane.stop()

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            self._engine.expire(time.monotonic())
            ticks += 1
            if ticks % SWEEP_TICKS == 0:
                self._listeners.sweep()

    def _route_to(self, client: FiveTuple, peer: Address, now: float) -> Route | None:
        # The engine is made after the forwarder, which its relay sockets need.
        return self._engine.route_to(client, peer, now)

    def _follow_addresses(self) -> None:
        self._addresses = local_addresses()
        self.policy.own_addresses = self._addresses
        self._ports.set_addresses(self._relay_addresses())
        self._listeners.follow(self._addresses)

    def _relay_addresses(self) -> dict[Family, list[str]]:
        """The addresses to relay from, by family, the default one first."""
        if self._settings.relay_addresses:
            hosts = list(self._settings.relay_addresses)
            return {
                family: [h for h in hosts if (":" in h) == (family is Family.IPV6)]
                for family in Family
            }
        listen = (*self._settings.listen, *self._settings.listen_tls)
        if listen and all(endpoint.is_loopback for endpoint in listen):
            # Nobody outside can ask for an allocation, so nobody outside needs to be reached.
            return {
                family: sorted(
                    {e.host for e in listen if (":" in e.host) == (family is Family.IPV6)}
                )
                for family in Family
            }
        return relay_candidates(self._addresses)

    def _external(self) -> list[tuple[str, str]]:
        """The (public, local) pairs of 1:1 NAT; a public address alone stands for the default."""
        pairs = []
        for public, local in self._settings.external_addresses:
            family = Family.IPV6 if ":" in public else Family.IPV4
            hosts = [local] if local else self._relay_addresses()[family][:1]
            pairs += [(public, host) for host in hosts]
        return pairs

    def _tls_context(self) -> ssl.SSLContext:
        certificate, key = self._settings.tls_certificate, self._settings.tls_key
        if certificate is None or key is None:
            raise StartError("turn.listen_tls: TLS needs turn.tls_certificate and turn.tls_key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key)
            self._certificate_expiry = _expiry(certificate)
        except (OSError, ValueError) as error:
            raise StartError(f"turn.tls_certificate, turn.tls_key: {error}") from None
        return context


def _authenticator(settings: TurnSettings) -> Authenticator:
    shared = [secret.get_secret_value() for secret in settings.secret]
    users = {name: password.get_secret_value() for name, password in settings.users.items()}
    # With a secret in the configuration, nonces are good after a restart and on other nodes too.
    nonce_key = shared[0].encode() if shared else secrets.token_bytes(32)
    return Authenticator(
        settings.realm,
        Credentials(settings.realm, users, shared),
        nonce_key,
        settings.nonce_lifetime,
        Integrity[settings.auth_minimum.upper()],
    )


def _limits(settings: TurnSettings) -> Limits:
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
            settings.max_bytes_per_second_in_all,
        ),
    )


def _rules(
    settings: TurnSettings, reserved_ports: Iterable[int], external: Sequence[tuple[str, str]]
) -> PolicyRules:
    own = {endpoint.port for endpoint in (*settings.listen, *settings.listen_tls)}
    return PolicyRules(
        allow=settings.allow_peers,
        deny=settings.deny_peers,
        open_private=settings.open_private_peers,
        reserved_ports=frozenset(own | set(reserved_ports)),
        external=tuple(external),
    )


def _open_plane(wanted: str) -> Plane:
    """The data plane beside user space. :raises StartError: ``kernel`` is wanted and cannot be."""
    if wanted == "userspace":
        return NullPlane("as configured")
    try:
        plane = KernelPlane()
    except Unavailable as error:
        if wanted == "kernel":
            raise StartError(f'turn.data_plane is "kernel", but {error}') from None
        log.info("data plane", plane="userspace", reason=str(error))
        return NullPlane(str(error))
    log.info("data plane", plane=plane.name, reason=plane.reason)
    return plane


def _expiry(certificate: Path) -> float:
    loaded = x509.load_pem_x509_certificates(certificate.read_bytes())
    return min(one.not_valid_after_utc.timestamp() for one in loaded)


def _raise_descriptor_limit() -> None:
    """Each allocation is a descriptor: take as many as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
