"""The relay as several processes, with the face of one: that of ``TurnService``.

Settings, drains and revocations go to all of its workers, and what they report is added up.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

import structlog
from msgspec import Struct

from config.schema import LogSettings
from config.turn import TurnSettings
from turn import assemble
from turn.admin.journal import Journal
from turn.admin.relay import RELAY_EVENTS, RelayFigures, figures_of
from turn.codec.values import Address
from turn.external.memory import Memory
from turn.external.watch import ExternalWatch
from turn.revoked import RevokedFile
from turn.routes import NOTHING, RouteTable
from turn.stats import Stats
from turn.telling import Facts
from turn.transport.addresses import AddressWatch, local_addresses
from turn.transport.listeners import Listening
from turn.webhooks import Webhooks
from turn.workers.allocations import PATIENCE, PoolAllocations
from turn.workers.crew import Crew
from turn.workers.figures import PoolCollector, Ports
from turn.workers.frozen import freeze, with_turn
from turn.workers.messages import (
    STEP,
    Done,
    Drain,
    Level,
    Reload,
    Report,
    Resume,
    Revoke,
    Setup,
    Watch,
)
from turn.workers.sockets import Groups
from turn.workers.worker import Worker

log = structlog.get_logger("turn")

REPORT_PATIENCE = 1.0
"""Seconds that a scrape waits for a worker that is busy."""
MOST_NUMBERS = 1 << 32
"""Allocations that a worker can have in its life."""


class WorkerPool:
    """The relay of this machine, in ``turn.workers`` processes."""

    name = "turn"
    plane = "userspace"
    figures_type = RelayFigures
    events = (*RELAY_EVENTS, "events_lost")

    def __init__(
        self,
        settings: TurnSettings,
        logs: LogSettings,
        reserved_ports: Iterable[int] = (),
        journal: Journal | None = None,
        revoked: RevokedFile | None = None,
    ) -> None:
        """Prepare; nothing is opened before ``start``.

        :param reserved_ports: ports of our other services on this machine; never relayed to.
        :param revoked: where revocations outlive the pool.
        :param journal: hears of what happens at the workers, while it is on.
        """
        self._journal = journal or Journal()
        self._webhooks = Webhooks(settings)
        self._stats = Stats()
        """What this process counts by itself."""
        self._stats.webhooks = self._webhooks.counts
        self._revoked: dict[str, tuple[float, float]] = {}
        self._file = revoked
        self.on_remembered: Callable[[str, float], None] = lambda *_: None
        """As of ``TurnService``."""
        self._state = assemble.state_folder(settings)
        self._settings = settings
        self._logs = logs
        self._reserved_ports = list(reserved_ports)
        self._addresses = local_addresses()
        self._frozen = b""
        self._level = ""
        """Of the log, where an operator has set it since the last reload."""
        self._watch = AddressWatch(self._follow_addresses)
        self._external = ExternalWatch(
            lambda: (self._settings, self._addresses),
            self._follow_external,
            Memory(self._state),
        )
        groups = Groups(settings, settings.workers)
        self._crew = Crew(
            settings.workers, groups, self._introduce, self._told, lasting=bool(self._state)
        )
        self._workers = self._crew.workers
        self.collections = (PoolAllocations(self._workers),)
        self.draining = False
        self.collector = PoolCollector(
            (worker.tally for worker in self._workers),
            self._ports,
            lambda number: self._workers[number].serving.is_set(),
            lambda: self._settings.tenants,
            self._external.gauges,
            self._stats,
        )

    @property
    def plane_reason(self) -> str:
        """Why packets are carried where they are."""
        return f"in {len(self._workers)} processes: the kernel plane needs only one"

    @property
    def addresses(self) -> list[Listening]:
        """Where all listen, once started."""
        return [Listening(it.protocol, it.host, it.port) for it in self._workers[0].listening]

    @property
    def relay_addresses(self) -> list[str]:
        """The addresses that peers see packets come from, as clients are told."""
        return assemble.public_relay_addresses(self.resolved(self._settings), self._addresses)

    def resolved(self, settings: TurnSettings) -> TurnSettings:
        """As of ``TurnService``; the workers get no others, and ask nobody."""
        return self._external.resolved(settings, self._addresses)

    @property
    def ports_in_use(self) -> int:
        """Relay ports that were open at the last report."""
        return sum(report.ports_in_use for report in self.collector.reports)

    @property
    def pids(self) -> list[int | None]:
        """The workers' process ids, in order; None where one is being replaced."""
        return [worker.pid if worker.serving.is_set() else None for worker in self._workers]

    # Life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the sockets, start the workers, and wait until all serve.

        :raises StartError: a worker cannot serve; it says why.
        :raises ListenError: an address cannot be listened on.
        """
        await self._external.first()
        self._frozen = self._freeze(self._settings, self._logs)
        self._revoked = self._file.open() if self._file else {}
        for user, (until, _) in self._revoked.items():
            self.on_remembered(user, until)
        log.info("data plane", plane=self.plane, reason=self.plane_reason)
        await self._crew.start(self._addresses)
        self._webhooks.start()
        self._watch.start()
        self._external.start()

    async def refresh(self) -> None:
        """Have every worker say how it goes, for the collector to tell."""
        await self._crew.ask_all(Report, REPORT_PATIENCE)

    def ready(self) -> list[str]:
        """What keeps the relay from being sent clients; empty: nothing."""
        if not self._crew.running:
            return ["not running"]
        problems = [f"worker {number} is being replaced" for number in self._crew.missing]
        if self.draining:
            problems.append("draining")
        return problems + assemble.unplaced(self._settings)

    def reload(self, settings: TurnSettings, logs: LogSettings | None = None) -> None:
        """Go on with other settings, all workers or none.

        :raises StartError: the certificate is not usable, or an address to relay from is not here;
            nothing has changed.
        """
        assemble.refuse_misplaced(self._settings, settings, self._addresses)
        logs = logs or self._logs
        self._frozen = self._freeze(settings, logs)
        self._settings, self._logs, self._level = settings, logs, ""
        self._webhooks.replace(settings)
        self._crew.tell_all(Reload(self._frozen))
        self._external.poke()
        # Whether anybody may watch is known once the rest of this process has the settings.
        asyncio.get_running_loop().call_soon(lambda: self._crew.tell_all(self._watched()))

    def set_log_level(self, level: str) -> None:
        """Log these lines and more important ones, until the next reload."""
        self._level = level
        self._crew.tell_all(Level(level))

    async def drain(self, seconds: float) -> None:
        """Turn new allocations away and wait until the live ones of all have ended."""
        self.draining = True
        for worker in self._workers:
            worker.drained.clear()
        self._crew.tell_all(Drain(seconds))
        waiting = [worker.drained.wait() for worker in self._workers if worker.serving.is_set()]
        await asyncio.gather(*waiting)

    def resume(self) -> None:
        """Give allocations again."""
        self.draining = False
        self._crew.tell_all(Resume())

    def left(self) -> dict[str, int]:
        """What a drain waits for, as of the last report."""
        return {"allocations": self.collector.allocations}

    def figures(self) -> RelayFigures:
        """How it goes, in numbers, as of the last report."""
        stats, ports = self.collector.stats(), self._ports()
        return figures_of(
            stats,
            {"userspace": RouteTable(stats).in_user_space(), "kernel": NOTHING},
            stats.drops,
            allocations=self.collector.allocations,
            ports=ports.size,
            ports_free=ports.free,
            plane=self.plane,
            plane_reason=self.plane_reason,
            certificate_not_after=self.collector.certificate_expiry(),
            listening=[f"{it.protocol} {Address(it.host, it.port)}" for it in self.addresses],
            relay_addresses=self.relay_addresses,
            external=self._external.entries(),
        )

    async def revoke(self, user: str, until: float) -> int:
        """Close all allocations of a user at all workers, and refuse it others until then."""
        return await self._revoke(user, until, 0.0)

    def heed(self, user: str, until: float, spent: float = 0.0) -> None:
        """The same at once, also where it was revoked elsewhere (``TurnService.heed``)."""
        self._keep(user, until, spent)
        self._crew.tell_all(Revoke(0, user, until, spent))

    async def restore(self, user: str) -> None:
        """Let a user that was revoked allocate again."""
        await self._revoke(user, 0.0, 0.0)

    async def _revoke(self, user: str, until: float, spent: float) -> int:
        self._keep(user, until, spent)
        answers = await self._crew.ask_all(lambda n: Revoke(n, user, until, spent), PATIENCE)
        return sum(answer.count for answer in answers if isinstance(answer, Done))

    def _keep(self, user: str, until: float, spent: float) -> None:
        self._revoked[user] = (until, spent)
        if self._file is not None:
            self._file.put(user, until, spent)

    async def stop(self) -> None:
        """Close everything."""
        await self._end(leave=False)

    async def leave(self) -> None:
        """Close every socket, for another pool of as many to go on with the allocations."""
        await self._end(leave=True)

    async def _end(self, *, leave: bool) -> None:
        if self._crew.running:
            self._watch.stop()
            self._external.stop()
            await self.refresh()
            await self._crew.end(leave=leave)
            await self._webhooks.stop(leave=leave)

    # The workers ----------------------------------------------------------------------------

    def _introduce(self, worker: Worker, addresses: list[str]) -> Sequence[Struct]:
        """What a fresh process has to know, at first of these addresses only."""
        now = time.time()
        self._revoked = {user: it for user, it in self._revoked.items() if max(it) > now}
        key, rows, salt = self._crew.secrets
        setup = Setup(
            worker=worker.number,
            workers=self._settings.workers,
            settings=self._frozen,
            reserved_ports=self._reserved_ports,
            key=key,
            secret=rows,
            salt=salt,
            addresses=addresses,
            draining=self.draining,
            revoked=self._revoked,
            state=self._state_of(worker),
            webhooks=self._webhooks.on,
            # Also the one that follows a dead worker gives no number a second time.
            first_number=worker.tally.restarts * STEP * MOST_NUMBERS + STEP + worker.number,
        )
        return setup, self._watched()

    def _watched(self) -> Watch:
        return Watch(self._journal.on, self._webhooks.on)

    def _state_of(self, worker: Worker) -> str:
        """Its folder. With as many workers the kernel gives it the same clients again."""
        if not self._state:
            return ""
        return f"{self._state}/workers-{self._settings.workers}/{worker.number}"

    def _told(self, number: int, kind: str, facts: Facts, lost: int) -> None:
        """Take an event of a worker."""
        if lost:
            self._journal.tell("events_lost", {"worker": number, "lost": lost})
        self._webhooks.tell(kind, facts)
        self._journal.tell(kind, facts)

    # The machine ----------------------------------------------------------------------------

    def _follow_addresses(self) -> None:
        self._addresses = local_addresses()
        self._crew.follow(self._addresses)
        self._external.poke()

    def _follow_external(self) -> None:
        """Have all workers tell clients what is our external address now."""
        self._frozen = with_turn(self._frozen, self._theirs(self._settings))
        self._crew.tell_all(Reload(self._frozen))
        if self._level:  # a reload has taken it back
            self._crew.tell_all(Level(self._level))

    def _freeze(self, settings: TurnSettings, logs: LogSettings) -> bytes:
        return freeze(self._theirs(settings), logs)

    def _theirs(self, settings: TurnSettings) -> TurnSettings:
        own = {"data_plane": "userspace", "webhook_url": ""}  # what is told is told by this process
        return self.resolved(settings).model_copy(update=own)

    def _ports(self) -> Ports:
        first, last = self._settings.relay_ports
        size = last - first + 1
        relays = assemble.relay_addresses(self._settings, self._addresses)
        hosts = [host for hosts in relays.values() for host in hosts]
        free = (size - self._crew.ports_in_use(host) for host in hosts)
        return Ports(size, min(free, default=0))
