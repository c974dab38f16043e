"""The relay as several processes: starts them, keeps them alive, and speaks for them as one.

It has the face of ``TurnService``. It opens the sockets, and holds what all workers share; the
relaying is theirs.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Iterable

import structlog
from msgspec import Struct

from config.schema import LogSettings
from config.turn import TurnSettings
from turn import assemble
from turn.admin.journal import Journal
from turn.admin.relay import RelayFigures, figures_of
from turn.codec.values import Address
from turn.kernel.plane import NOTHING
from turn.routes import RouteTable
from turn.telling import Facts
from turn.transport.addresses import AddressWatch, local_addresses
from turn.transport.listeners import Listening
from turn.workers.allocations import PATIENCE, PoolAllocations
from turn.workers.books import SharedBooks, forget_strangers
from turn.workers.figures import PoolCollector, Ports
from turn.workers.frozen import freeze
from turn.workers.ledger import Ledger
from turn.workers.memory import Memory
from turn.workers.messages import (
    STEP,
    Addresses,
    Claim,
    Claimed,
    Done,
    Drain,
    Gone,
    Level,
    Lost,
    Reload,
    Report,
    Resume,
    Revoke,
    Setup,
    Socket,
    Start,
    Started,
    Take,
    Taken,
    Watch,
)
from turn.workers.sockets import Group, Groups
from turn.workers.worker import Worker

log = structlog.get_logger("turn")

START_PATIENCE = 60.0
"""Seconds for all workers to serve, on a machine that has much else to do."""
REPORT_PATIENCE = 1.0
"""Seconds that a scrape waits for a worker that is busy."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a worker that has died is replaced; twice as long each time it dies at once."""
MOST_NUMBERS = 1 << 32
"""Allocations that a worker can have in its life."""
STEADY = 30.0
"""Seconds after which a death is a new story."""


class WorkerPool:
    """The relay of this machine, in ``turn.workers`` processes."""

    name = "turn"
    plane = "userspace"
    figures_type = RelayFigures

    def __init__(
        self,
        settings: TurnSettings,
        logs: LogSettings,
        reserved_ports: Iterable[int] = (),
        journal: Journal | None = None,
    ) -> None:
        """Prepare; nothing is opened before ``start``.

        :param reserved_ports: ports of our other services on this machine; never relayed to.
        :param journal: hears of what happens at the workers, while it is on.
        """
        self._journal = journal or Journal()
        self._revoked: dict[str, tuple[float, float]] = {}
        self._state = assemble.state_folder(settings)
        self._settings = settings
        self._logs = logs
        self._reserved_ports = list(reserved_ports)
        self._addresses = local_addresses()
        self._groups = Groups(settings, settings.workers)
        self._frozen = b""
        self._key, self._secret = secrets.token_bytes(32), secrets.token_bytes(32)
        self._salt = secrets.randbits(64)
        self._watch = AddressWatch(self._follow_addresses)
        self._workers = [
            Worker(number, self._introduce, self._hear, self._told)
            for number in range(settings.workers)
        ]
        self.collections = (PoolAllocations(self._workers),)
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self.draining = False
        self.collector = PoolCollector(
            (worker.tally for worker in self._workers),
            self._ports,
            lambda number: self._workers[number].serving.is_set(),
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
        return assemble.public_relay_addresses(self._settings, self._addresses)

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
        self._frozen = self._freeze(self._settings)
        self._groups.open(self._addresses)
        self._memory = Memory.create(len(self._workers))
        self._ledger = Ledger(self._memory, self._secret)
        self._books = SharedBooks(self._ledger, 0, lambda *_: None)
        log.info("data plane", plane=self.plane, reason=self.plane_reason)
        loop = asyncio.get_running_loop()
        self._keepers = [loop.create_task(self._keep(worker)) for worker in self._workers]
        try:
            await self._all_serve()
        except assemble.StartError:
            await self.stop()
            raise
        self._watch.start()

    async def _all_serve(self) -> None:
        deadline = time.monotonic() + START_PATIENCE
        for worker in self._workers:
            while not worker.serving.is_set():
                if failed := next((w.failure for w in self._workers if w.failure), ""):
                    raise assemble.StartError(failed)
                if time.monotonic() > deadline:
                    raise assemble.StartError(f"turn.workers: worker {worker.number} did not start")
                await asyncio.sleep(0.01)

    async def _keep(self, worker: Worker) -> None:
        """See that a place among the workers is held, until the end."""
        pause = FIRST_PAUSE
        while True:
            code = await worker.run()
            if self._stopping:
                return
            self._bury(worker)
            if not self._state:
                self._tell_lost(worker)
            if time.monotonic() - worker.began > STEADY:
                pause = FIRST_PAUSE
            log.error(
                "a worker has died; its clients have to allocate anew",
                worker=worker.number, exit=code, reason=worker.failure, again_in=pause,
            )  # fmt: skip
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _bury(self, worker: Worker) -> None:
        """Give back what a dead worker had."""
        worker.tally.end()
        self._ledger.clear(worker.number)
        forget_strangers(self._memory, worker.number)

    def _tell_lost(self, worker: Worker) -> None:
        """Have the others send nothing more to relayed addresses that a worker has lost."""
        for other in self._workers:
            if other is not worker:
                other.send(Lost())

    async def refresh(self) -> None:
        """Have every worker say how it goes, for the collector to tell."""
        await asyncio.gather(*(worker.ask(Report, REPORT_PATIENCE) for worker in self._workers))

    def ready(self) -> list[str]:
        """What keeps the relay from being sent clients; empty: nothing."""
        if not self._keepers or any(keeper.done() for keeper in self._keepers):
            return ["not running"]
        problems = [
            f"worker {worker.number} is being replaced"
            for worker in self._workers
            if not worker.serving.is_set()
        ]
        return [*problems, "draining"] if self.draining else problems

    def reload(self, settings: TurnSettings, logs: LogSettings | None = None) -> None:
        """Go on with other settings, all workers or none.

        :raises StartError: the certificate is not usable; nothing has changed.
        """
        self._logs = logs or self._logs
        self._frozen = self._freeze(settings)
        self._settings = settings
        self._tell_all(Reload(self._frozen))
        # Whether anybody may watch is known once the rest of this process has the settings.
        asyncio.get_running_loop().call_soon(lambda: self._tell_all(Watch(self._journal.on)))

    def set_log_level(self, level: str) -> None:
        """Log these lines and more important ones, until the next reload."""
        self._tell_all(Level(level))

    async def drain(self, seconds: float) -> None:
        """Turn new allocations away and wait until the live ones of all have ended."""
        self.draining = True
        for worker in self._workers:
            worker.drained.clear()
        self._tell_all(Drain(seconds))
        waiting = [worker.drained.wait() for worker in self._workers if worker.serving.is_set()]
        await asyncio.gather(*waiting)

    def resume(self) -> None:
        """Give allocations again."""
        self.draining = False
        self._tell_all(Resume())

    def left(self) -> dict[str, int]:
        """What a drain waits for, as of the last report."""
        return {"allocations": self.collector.allocations}

    def figures(self) -> RelayFigures:
        """How it goes, in numbers, as of the last report."""
        stats, ports = self.collector.stats(), self._ports()
        return figures_of(
            stats,
            {"userspace": RouteTable(stats).in_user_space(), "kernel": NOTHING},
            allocations=self.collector.allocations,
            ports=ports.size,
            ports_free=ports.free,
            plane=self.plane,
            plane_reason=self.plane_reason,
            certificate_not_after=self.collector.certificate_expiry(),
            listening=[f"{it.protocol} {Address(it.host, it.port)}" for it in self.addresses],
            relay_addresses=self.relay_addresses,
        )

    async def revoke(self, user: str, until: float) -> int:
        """Close all allocations of a user at all workers, and refuse it others until then."""
        return await self._revoke(user, until, 0.0)

    def heed(self, user: str, until: float, spent: float = 0.0) -> None:
        """The same at once, also where it was revoked elsewhere (``TurnService.heed``)."""
        self._revoked[user] = (until, spent)
        self._tell_all(Revoke(0, user, until, spent))

    async def restore(self, user: str) -> None:
        """Let a user that was revoked allocate again."""
        await self._revoke(user, 0.0, 0.0)

    async def _revoke(self, user: str, until: float, spent: float) -> int:
        self._revoked[user] = (until, spent)
        answers = await asyncio.gather(
            *(each.ask(lambda n: Revoke(n, user, until, spent), PATIENCE) for each in self._workers)
        )
        return sum(answer.count for answer in answers if isinstance(answer, Done))

    async def stop(self) -> None:
        """Close everything."""
        await self._end(leave=False)

    async def leave(self) -> None:
        """Close every socket, for another pool of as many to go on with the allocations."""
        await self._end(leave=True)

    async def _end(self, *, leave: bool) -> None:
        if not self._keepers or self._stopping:
            return
        self._stopping = True
        self._watch.stop()
        await self.refresh()
        await asyncio.gather(*(worker.stop(leave=leave) for worker in self._workers))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._groups.close()
        self._memory.close()

    # Between workers ------------------------------------------------------------------------

    def _introduce(self, worker: Worker) -> None:
        """Tell a fresh process all that it has to know, and let it serve."""
        now = time.time()
        self._revoked = {user: it for user, it in self._revoked.items() if max(it) > now}
        setup = Setup(
            worker=worker.number,
            workers=len(self._workers),
            settings=self._frozen,
            reserved_ports=self._reserved_ports,
            key=self._key,
            secret=self._secret,
            salt=self._salt,
            addresses=self._addresses,
            draining=self.draining,
            revoked=self._revoked,
            state=self._state_of(worker),
            # Also the one that follows a dead worker gives no number a second time.
            first_number=worker.tally.restarts * STEP * MOST_NUMBERS + STEP + worker.number,
        )
        worker.send(setup, [self._memory.descriptor])
        self._hand(worker, self._groups)
        worker.send(Start())
        worker.send(Watch(self._journal.on))

    def _state_of(self, worker: Worker) -> str:
        """Its folder. With as many workers the kernel gives it the same clients again."""
        if not self._state:
            return ""
        return f"{self._state}/workers-{len(self._workers)}/{worker.number}"

    @staticmethod
    def _hand(worker: Worker, groups: Iterable[Group]) -> None:
        for group in groups:
            member = group.members[worker.number]
            worker.send(Socket(group.kind, group.host, group.port), [member.fileno()])

    def _hear(self, worker: Worker, message: Struct, descriptors: list[int]) -> None:
        """Take what a worker says that is not for its ``Worker`` alone."""
        if isinstance(message, Started):
            if worker.tally.restarts and self._state:  # what it could not go on with is lost
                self._tell_lost(worker)
        else:
            self._pass_on(message, descriptors)

    def _pass_on(self, message: Struct, descriptors: list[int]) -> None:
        """Bring what one worker says to another to it."""
        match message:
            case Gone(workers=numbers):
                for number in numbers:
                    self._send(number, message)
            case Claim(number, asking, holding):
                if not self._send(holding, message):
                    self._send(asking, Claimed(number, asking))
            case Take(number=number, asking=asking, holding=holding):
                if not self._send(holding, message):
                    self._send(asking, Taken(number, asking, 400))
            case Claimed(asking=asking) | Taken(asking=asking):
                self._send(asking, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _send(self, number: int, message: Struct, descriptors: Iterable[int] = ()) -> bool:
        """Tell one worker; False where there is none."""
        serves = 0 <= number < len(self._workers) and self._workers[number].serving.is_set()
        if serves:
            self._workers[number].send(message, list(descriptors))
        return serves

    def _told(self, number: int, kind: str, facts: Facts, lost: int) -> None:
        """Take an event of a worker."""
        if lost:
            self._journal.tell("events_lost", {"worker": number, "lost": lost})
        self._journal.tell(kind, facts)

    def _tell_all(self, message: Struct) -> None:
        for worker in self._workers:
            worker.send(message)

    # The machine ----------------------------------------------------------------------------

    def _follow_addresses(self) -> None:
        self._addresses = local_addresses()
        fresh = self._groups.follow(self._addresses)
        for worker in self._workers:
            self._hand(worker, fresh)
            worker.send(Addresses(self._addresses))

    def _freeze(self, settings: TurnSettings) -> bytes:
        return freeze(settings.model_copy(update={"data_plane": "userspace"}), self._logs)

    def _ports(self) -> Ports:
        first, last = self._settings.relay_ports
        size = last - first + 1
        relays = assemble.relay_addresses(self._settings, self._addresses)
        hosts = [host for hosts in relays.values() for host in hosts]
        free = (size - self._books.ports_in_use(host) for host in hosts)
        return Ports(size, min(free, default=0))
