"""The life of one relay: start, reload, drain, stop; and how it goes, for those who ask."""

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable

import structlog

from config.section import StartError
from config.turn import TurnSettings
from turn import assemble
from turn.admin.relay import RELAY_EVENTS, Allocations, RelayFigures, figures_of
from turn.codec.values import Address
from turn.common import Common, alone
from turn.external.memory import Memory
from turn.external.watch import ExternalWatch
from turn.handover import Handover
from turn.idle import FEW, Idle
from turn.kernel.plane import NullPlane, Plane
from turn.lending import Lending
from turn.metrics import Gauges, TurnCollector
from turn.relay.shelf import NO_SHELF
from turn.routes import Carried, FiveTuple, RouteTable
from turn.stats import DropReason, Tally, TenantBytes
from turn.telling import Tell, to_nobody
from turn.tenants import allocations_of_tenants, bytes_of_tenants, figures_of_tenants
from turn.transport.addresses import AddressWatch
from turn.transport.listeners import Listening
from turn.webhooks import Webhooks
from turn.wiring import wire

log = structlog.get_logger("turn")

TICK = 1.0
"""Seconds between looks at what has expired."""
DRAIN_LOOK = 0.1
"""Seconds between looks at what is left while draining."""
SWEEP_TICKS = 10
"""Ticks between looks at connections without a purpose."""


class TurnService:
    """The relay of this process."""

    name = "turn"
    figures_type = RelayFigures
    events = RELAY_EVENTS

    def __init__(
        self,
        settings: TurnSettings,
        reserved_ports: Iterable[int] = (),
        common: Common | None = None,
        tell: Tell = to_nobody,
    ) -> None:
        """Prepare; nothing is opened before ``start``.

        :param reserved_ports: ports of our other services on this machine; never relayed to.
        :param common: what it shares with other workers; without it, it is the only one.
        :param tell: hears of what happens, for operators who watch.
        """
        self._settings = settings
        self._common = common or alone()
        self._reserved_ports = tuple(reserved_ports)
        self._webhooks = Webhooks(settings)
        wired = wire(settings, self._common, self._reserved_ports, self._webhooks.also(tell))
        self._addresses, self._state = wired.addresses, wired.state
        self.stats, self.policy = wired.stats, wired.policy
        self._routes, self._poller, self._ports = wired.routes, wired.poller, wired.ports
        self._engine, self._listeners = wired.engine, wired.listeners
        self._back_end = wired.back_end
        self.stats.webhooks = self._webhooks.counts
        self._idle = Idle(self._engine.table, self._routes)
        self.handover = Handover(self._engine, self._ports, self._routes, self.policy)
        self.lending = Lending(self._engine, self.stats)
        """Both where there are workers beside it."""
        self.collections: tuple[Allocations, ...] = (Allocations(self._engine, self._routes),)
        self.on_remembered: Callable[[str, float], None] = lambda *_: None
        """Told at the start of each user that was revoked before, and until when (Unix time)."""
        self._watch = AddressWatch(self.follow_addresses)
        self._external = ExternalWatch(
            lambda: (self._settings, self._addresses),
            lambda: self._apply(self._settings),
            Memory(assemble.state_folder(settings)),
        )
        self._plane: Plane = NullPlane("not started")
        self._certificate: assemble.Certificate | None = None
        self._ticker: asyncio.Task[None] | None = None
        self.gauges = Gauges(
            lambda: len(self._engine.table),
            lambda: self.ports_in_use,
            lambda: (self._ports.size, self._ports.free),
            lambda: self._certificate.expires if self._certificate else None,
            self._carried,
            self._dropped,
            lambda: figures_of_tenants(self._settings.tenants, *self.of_tenants()),
            self._external.gauges,
        )
        self.collector = TurnCollector(self.stats, self._routes, self.gauges)

    @property
    def draining(self) -> bool:
        """Whether new allocations are turned away."""
        return self._engine.draining

    @property
    def ports_in_use(self) -> int:
        """Relay ports that are open now."""
        return self._ports.in_use

    @property
    def routes(self) -> RouteTable:
        """Its live routes, which count for themselves."""
        return self._routes

    async def refresh(self) -> None:
        """Nothing: the collector tells what is true when it is asked."""

    def _carried(self) -> Carried:
        # The plane is opened by ``start``, after the collector was made.
        return self._plane.carried()

    def _dropped(self) -> Counter[DropReason]:
        return self._plane.dropped()

    def of_tenants(self) -> tuple[Tally[str], TenantBytes]:
        """Live allocations of each tenant's users, and what they have relayed."""
        allocations = list(self._engine.table) if self._settings.tenants else []
        relayed = bytes_of_tenants(allocations, self._routes, self.stats)
        return allocations_of_tenants(allocations), relayed

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
        return assemble.public_relay_addresses(self.resolved(self._settings), self._addresses)

    def resolved(self, settings: TurnSettings) -> TurnSettings:
        """Settings with the external addresses that STUN servers tell, in place of the servers."""
        return self._external.resolved(settings, self._addresses)

    async def start(self) -> None:
        """Open the sockets and begin to serve.

        :raises StartError: a file or ``state_directory`` is not usable, or there is no address to
            relay from.
        :raises ListenError: an address cannot be listened on.
        """
        settings = self._settings
        if not self._ports.families:
            raise StartError("turn.relay_addresses: this machine has no address to relay from")
        assemble.warn_misplaced(settings, self._addresses)
        if settings.listen_tls or settings.listen_dtls:
            self._certificate = assemble.Certificate(settings)
        tls = self._certificate.context if self._certificate else None
        if self._certificate and settings.listen_dtls:
            dtls = [(endpoint.host, endpoint.port) for endpoint in settings.listen_dtls]
            self._listeners.add_dtls(dtls, self._certificate.dtls(settings))
        if self._state:
            assemble.open_state(self._state)
        if self._common.revoked is not None:
            for user, times in self._common.revoked.open().items():
                self._engine.revoke(user, *times)
                self.on_remembered(user, times[0])
        _raise_descriptor_limit()
        await self._find_external()
        loop = asyncio.get_running_loop()
        self._plane = assemble.data_plane(settings, keep=self._state is not None)
        self._routes.observe(self._plane)
        self._plane.start(loop)
        self._poller.start(loop)
        try:
            self._listeners.open_datagram(self._addresses)
            self._restore()
            for host, port, plain, secure in assemble.stream_places(settings):
                await self._listeners.open_stream(host, port, tls if secure else None, plain=plain)
        except OSError:
            await self._listeners.close()
            self._poller.stop(loop)
            self._plane.leave()
            if self._state:
                self._state.close(remove=False)
            raise
        self._common.shelf.clean()
        self.policy.reserve_ports(place.port for place in self.addresses)
        if self._common.watches:
            self._watch.start()
            self._external.start()
        self._webhooks.start()
        self._ticker = loop.create_task(self._tick())

    async def _find_external(self) -> None:
        if await self._external.first():
            self._apply(self._settings)

    def reload(self, settings: TurnSettings) -> None:
        """Go on with other settings: no allocation ends but for peers that are refused now.

        Rates hold for allocations that begin from now on. What only a restart can change stays
        as it is (``TurnSettings.needs_restart``).

        :raises StartError: the certificate is not usable, or an address to relay from is not here;
            nothing has changed.
        """
        assemble.refuse_misplaced(self._settings, settings, self._addresses)
        if self._certificate:
            self._certificate.load(settings)
        self._settings = settings
        self._back_end.replace(settings)
        self._webhooks.replace(settings)
        self._apply(settings)
        self._listeners.reload(settings)
        self._external.poke()

    def follow_addresses(self) -> None:
        """Take in that the machine's addresses have changed."""
        self._addresses = self._common.addresses()
        self.policy.own_addresses = frozenset(self._addresses)
        self._apply(self._settings)
        self._listeners.follow(self._addresses)
        self._external.poke()

    def _apply(self, settings: TurnSettings) -> None:
        """Relay and judge by these, as the machine's addresses are now."""
        settings = self.resolved(settings)
        relays = assemble.relay_addresses(settings, self._addresses)
        external = assemble.external_pairs(settings, relays)
        self._ports.set_addresses(relays)
        self._ports.set_range(settings.relay_ports, {local: public for public, local in external})
        self._ports.tcp = settings.tcp_allocations
        self.policy.set_rules(assemble.policy_rules(settings, self._reserved_ports, external))
        self.policy.reserve_ports(place.port for place in self.addresses)
        self._engine.reload(
            assemble.authenticator(settings, self._common.key, self._back_end.users),
            assemble.limits(settings),
            assemble.options(settings, external),
        )

    async def take_over(self, sock: socket.socket, client: FiveTuple) -> None:
        """Serve a client whose TCP or TLS connection another worker has; ``sock`` leads there."""
        await self._listeners.take_over(sock, client)

    def ready(self) -> list[str]:
        """What keeps the relay from being sent clients; empty: nothing."""
        problems = []
        if self._ticker is None or self._ticker.done():
            problems.append("not running")
        if self.draining:
            problems.append("draining")
        return problems + assemble.unplaced(self._settings)

    async def faults(self) -> None:
        """Wait until it stops. :raises Exception: the fault of ours for which it ticks no more."""
        if self._ticker is not None:
            ticker = self._ticker
            await asyncio.wait({ticker})
            if not ticker.cancelled():
                ticker.result()

    async def drain(self, seconds: float) -> None:
        """Turn new allocations away and wait until the live ones have ended, or carry nothing.

        :param seconds: the longest to wait; what lives longer is closed by ``stop``.
        """
        self._engine.draining = True
        table, began = self._engine.table, time.monotonic()
        in_use, looked = self._idle.look(began), began
        log.info("draining", allocations=len(table), in_use=in_use, seconds=seconds)
        while in_use and len(table) and (now := time.monotonic()) < began + seconds:
            if now - looked >= TICK:
                in_use, looked = self._idle.look(now), now
            await asyncio.sleep(DRAIN_LOOK)

    def resume(self) -> None:
        """Give allocations again."""
        self._engine.draining = False

    def left(self) -> dict[str, int]:
        """What a drain waits for."""
        return {"allocations": len(self._engine.table)}

    def figures(self) -> RelayFigures:
        """How it goes, in numbers."""
        return figures_of(
            self.stats,
            {"userspace": self._routes.in_user_space(), "kernel": self._carried()},
            Counter(self.stats.drops) + self._plane.dropped(),
            allocations=len(self._engine.table),
            ports=self._ports.size,
            ports_free=self._ports.free,
            plane=self.plane,
            plane_reason=self.plane_reason,
            certificate_not_after=self._certificate.expires if self._certificate else None,
            listening=[f"{it.protocol} {Address(it.host, it.port)}" for it in self.addresses],
            relay_addresses=self.relay_addresses,
            external=self._external.entries(),
        )

    async def revoke(self, user: str, until: float) -> int:
        """Close all allocations of a user, and refuse it others until then.

        :param user: as the quota counts it: without the expiry of time-limited credentials.
        :param until: Unix time.
        """
        return self.heed(user, until)

    def heed(self, user: str, until: float, spent: float = 0.0) -> int:
        """The same at once, also where it was revoked elsewhere.

        :param spent: credentials that end by this Unix time are of no use any more.
        """
        if self._common.revoked is not None:
            self._common.revoked.put(user, until, spent)
        return self._engine.revoke(user, until, spent)

    async def restore(self, user: str) -> None:
        """Let a user that was revoked allocate again."""
        self.heed(user, 0.0)

    async def stop(self) -> None:
        """Close every allocation, connection and socket."""
        if not await self._end():
            return
        self._engine.close_all()
        self._poller.stop(asyncio.get_running_loop())
        self._plane.stop()
        if self._state:
            self._state.close(remove=True)
        await self._webhooks.stop()

    async def leave(self) -> None:
        """Close every socket, for another process to go on with the allocations.

        What the kernel carries goes on meanwhile. Without ``state_directory`` it is ``stop``.
        """
        if self._state is None:
            await self.stop()
        elif await self._end():
            self._ports.shelf = NO_SHELF
            self._engine.leave()
            self._poller.stop(asyncio.get_running_loop())
            self._plane.leave()
            await self._webhooks.stop(leave=True)
            self._state.close(remove=False)

    async def _end(self) -> bool:
        """Hear of nobody any more; False: it was so already."""
        if self._ticker is None:
            return False
        self._ticker.cancel()
        self._ticker = None
        self._watch.stop()
        self._external.stop()
        await self._listeners.close()
        await self._back_end.stop()
        return True

    def _restore(self) -> None:
        """Go on with what the last process left, before anybody is answered."""
        if self._state:
            self._state.restore(self._engine, self._ports, self._listeners.senders)
            for client, peer in self._plane.inherited():
                self._engine.restore_route(client, peer, time.monotonic())
        self._plane.restored()

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK)
            self._engine.expire(time.monotonic())
            self._listeners.tick()
            self._ports.shelf.retry()
            if len(self._engine.table) <= FEW:
                self._idle.look(time.monotonic())
            ticks += 1
            if ticks % SWEEP_TICKS == 0:
                self._listeners.sweep()


def _raise_descriptor_limit() -> None:
    """Each allocation is a descriptor: take as many as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
