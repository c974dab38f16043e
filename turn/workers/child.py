"""A worker: the relay in a process of its own. ``python -m turn.workers.child DESCRIPTOR``.

It hears everything from the pool over one socket, and ends with it. Signals are the pool's: a
terminal or a supervisor sends them to all of us at once, and clients are to be drained first.
"""

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence

import structlog
import uvloop
from msgspec import Struct

from config.heap import settle
from config.log import set_level, set_up
from config.section import StartError
from turn.admin.journal import JournalHandler
from turn.allocation.elsewhere import Moved, Shown
from turn.codec.errors import StunError
from turn.codec.values import Address
from turn.common import Common
from turn.routes import FiveTuple
from turn.server import TurnService
from turn.workers.answers import Answers, Events
from turn.workers.books import SharedBooks, SharedPlaces
from turn.workers.frozen import thawed
from turn.workers.keys import Keys
from turn.workers.ledger import Ledger
from turn.workers.link import Link
from turn.workers.loans import Borrower, Lender
from turn.workers.memory import Memory
from turn.workers.messages import (
    STEP,
    TO_WORKER,
    Addresses,
    AskKey,
    Borrow,
    Claim,
    Claimed,
    Died,
    Drain,
    Drained,
    End,
    Ended,
    Failed,
    Follow,
    Gone,
    Inspect,
    Key,
    Lent,
    Level,
    List,
    Lost,
    Missing,
    Place,
    Recall,
    Reload,
    Report,
    Resume,
    Revoke,
    Setup,
    Socket,
    Start,
    Started,
    Stop,
    Take,
    Taken,
    Watch,
)
from turn.workers.others import Others, as_sockets
from turn.workers.sockets import Handed

log = structlog.get_logger("turn")

RELOAD_AGAIN = 1.0
"""Seconds."""
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """One worker."""

    def __init__(self, sock: socket.socket) -> None:
        self._over = asyncio.Event()
        self._link = Link(sock, TO_WORKER, self._heard, self._over.set)
        self._events = Events(self._link.send)
        self._watcher = JournalHandler(self._events.tell)
        self._leave = True
        """Whether another process goes on; so it is also where the pool has died."""
        self._early: list[tuple[Struct, list[int]]] = []
        """What was said before the relay was there to hear it."""
        self._handed = Handed(self._miss)
        self._addresses: list[str] = []
        self._setup: Setup
        self._common: Common
        self._others: Others
        self._answers: Answers
        self._lender: Lender
        self._service: TurnService | None = None
        self._again: asyncio.TimerHandle | None = None
        """Until settings are tried that could not be used."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None

    async def run(self) -> None:
        """Serve until the pool says stop, or is gone."""
        await self._over.wait()
        for task in list(self._tasks):
            task.cancel()
        if self._service is not None:
            await (self._service.leave() if self._leave else self._service.stop())
        self._handed.close()
        await self._link.flush()
        self._link.close()

    def _heard(self, message: Struct, descriptors: list[int]) -> None:
        """Do what the pool says."""
        service = self._service
        match message:
            case Setup() if descriptors:
                self._set_up(message, descriptors)
            case Setup():
                self._link.send(Failed("turn.workers: too many open files"))
                self._over.set()
            case Socket(kind, host, port):
                if descriptors:  # else whoever is to listen there finds that it is missing
                    self._handed.put(kind, host, port, descriptors)
            case Start():
                self._spawn(self._start())
            case Stop(leave):
                self._leave = leave
                self._over.set()
            case _ if service is None:
                self._early.append((message, descriptors))
            case Report() | List() | Inspect() | End() | Revoke() | Resume() | Watch() | Level():
                self._operate(service, message)
            case _:
                self._serve(service, message, descriptors)

    def _operate(self, service: TurnService, message: Struct) -> None:
        """Do what an operator wants of a relay that runs."""
        match message:
            case Report(number):
                self._answers.report(number)
            case Resume():
                service.resume()
            case Watch(on, webhooks):
                self._events.on, self._events.webhooks = on, webhooks
            case Level(level):
                set_level(level)
            case _:
                self._spawn(self._answers.answer(message))

    def _serve(self, service: TurnService, message: Struct, descriptors: list[int]) -> None:
        """Do what the pool says to a relay that runs."""
        match message:
            case Gone(host, port):
                service.handover.relay_gone(Address(host, port))
            case Claim():
                self._hand_over(service, message)
            case Claimed(number):
                socks = as_sockets(descriptors)
                self._others.answered(number, service.handover.adopt(socks[0]) if socks else None)
            case Take():
                self._let_go(service, message)
            case Taken():
                self._taken(service, message, descriptors)
            case Follow() | AskKey() | Key() | Borrow() | Lent() | Recall() | Ended() | Died():
                self._lend(service, message, descriptors)
            case Lost():
                service.handover.worker_gone()
            case Addresses(addresses):
                self._addresses = addresses
                service.follow_addresses()
                self._handed.close()  # what came twice, of an address that may go again
            case Reload(settings):
                self._reload(service, settings)
            case Drain(seconds):
                self._spawn(self._drain(service, seconds))

    def _lend(self, service: TurnService, message: Struct, descriptors: list[int]) -> None:
        """Do what concerns connections that one worker lends to another, or leads there."""
        borrower, lender = self._others.borrower, self._lender
        match message:
            case Follow(_, transport, client, server):
                who = FiveTuple(transport, Address(*client), Address(*server))
                for sock in as_sockets(descriptors):  # none: the other end has ended with it
                    self._spawn(service.take_over(sock, who))
            case AskKey(number, asking, connection=connection):
                self._link.send(Key(number, asking, service.lending.grant_of(connection)))
            case Key(number, grant=grant):
                self._others.keys.answered(number, grant)
            case Borrow():
                lender.asked(message)
            case Lent():
                borrower.answered(message, as_sockets(descriptors), service.lending)
            case Recall(number):
                borrower.recalled(number)
            case Ended():
                lender.ended(message)
            case Died(worker):
                lender.worker_gone(worker)
                borrower.worker_gone(worker)
                self._others.keys.worker_gone(worker)

    # Beginning ------------------------------------------------------------------------------

    def _set_up(self, setup: Setup, descriptors: list[int]) -> None:
        memory = Memory(descriptors[0], setup.workers)
        ledger = Ledger(memory, setup.secret)
        books = SharedBooks(ledger, setup.worker, self._tell_gone)
        self._setup = setup
        self._events.webhooks = setup.webhooks
        self._addresses = setup.addresses
        numbers, send = itertools.count(setup.first_number), self._link.send
        borrower = Borrower(setup.worker, setup.workers, numbers, send, self._spawn)
        keys = Keys(setup.worker, numbers, send)
        self._others = Others(setup.worker, setup.workers, books, numbers, send, borrower, keys)
        self._common = Common(
            setup.key,
            books,
            *memory.cells(setup.salt),
            SharedPlaces(memory, setup.worker, setup.salt),
            random_bytes=lambda size: bytes([setup.worker]) + os.urandom(size - 1),
            numbers=itertools.count(setup.first_number, STEP),
            elsewhere=self._others,
            bind=self._handed.bind,
            addresses=lambda: self._addresses,
            watches=False,
        )

    async def _start(self) -> None:
        setup = self._setup
        structlog.contextvars.bind_contextvars(worker=setup.worker)
        try:
            with thawed(setup.settings) as (turn, logs):
                set_up(logs, self._watcher)
                own = {"state_directory": setup.state}
                service = TurnService(
                    turn.model_copy(update=own),
                    setup.reserved_ports,
                    self._common,
                    tell=self._events.tell,
                )
                await service.start()
                settle()
        except (StartError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._link.send(Failed(reason))
            return
        self._service = service
        self._answers = Answers(service, self._link.send)
        self._lender = Lender(service.lending, self._link.send)
        self._spawn(service.faults())
        if setup.draining:
            await service.drain(0)
        for user, revocation in setup.revoked.items():
            service.heed(user, *revocation)
        for early in self._early:
            self._heard(*early)
        self._link.send(Started([Place(*place) for place in service.addresses]))

    # Going on -------------------------------------------------------------------------------

    def _reload(self, service: TurnService, settings: bytes) -> None:
        """Go on with other settings, as all do; where that cannot be, as soon as it can."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        try:
            with thawed(settings) as (turn, logs):
                set_up(logs, self._watcher)
                service.reload(turn)
        except (OSError, StartError) as error:  # the pool has tried them: no descriptors are left
            log.error("this worker has the settings of before; trying again", reason=str(error))
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(RELOAD_AGAIN, self._reload, service, settings)

    async def _drain(self, service: TurnService, seconds: float) -> None:
        await service.drain(seconds)
        self._link.send(Drained())

    def _hand_over(self, service: TurnService, claim: Claim) -> None:
        sock = service.handover.release_port(claim.token, claim.owner)
        answer = Claimed(claim.number, claim.asking)
        if sock is None:
            self._link.send(answer)
        else:
            with sock:
                self._link.send(answer, [sock.fileno()])

    def _let_go(self, service: TurnService, take: Take) -> None:
        shown = Shown(take.ticket, take.owner, take.host, take.transport)
        try:
            released = service.handover.release_allocation(shown)
        except StunError as error:
            self._link.send(Taken(take.number, take.asking, error.code))
            return
        if released is None:
            self._link.send(Taken(take.number, take.asking, 0, stays=True))
            return
        record, socks = released
        answer = Taken(take.number, take.asking, 0, record)
        self._link.send(answer, [sock.fileno() for sock in socks])
        for sock in socks:
            sock.close()

    def _taken(self, service: TurnService, answer: Taken, descriptors: list[int]) -> None:
        relays = [service.handover.adopt(sock) for sock in as_sockets(descriptors)]
        if answer.record is None:
            self._others.taken(answer.number, None if answer.stays else answer.code)
        elif relays:
            self._others.taken(answer.number, Moved(answer.record, relays))
        else:
            self._others.lost(answer.number, answer.record)

    def _miss(self, kind: str, host: str, port: int) -> None:
        if self._service is not None:  # else it does not start, and says why
            self._link.send(Missing(kind, host, port))

    def _tell_gone(self, relayed: Address, workers: Sequence[int]) -> None:
        self._link.send(Gone(*relayed, list(workers)))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.failure = task.exception()
            self._over.set()


def main() -> None:
    """Run a worker until its pool lets it go."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(sock))


async def _live(sock: socket.socket) -> None:
    child = Child(sock)
    await child.run()
    if child.failure is not None:
        raise child.failure


if __name__ == "__main__":
    main()
