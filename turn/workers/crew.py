"""The workers of a pool: started, kept alive, and brought together.

What they share is held here: the sockets of every address, the memory, the way from one to another.
"""

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
from msgspec import Struct

from config.section import StartError
from turn.workers.books import SharedBooks, forget_strangers
from turn.workers.ledger import Ledger
from turn.workers.memory import Memory
from turn.workers.messages import (
    Addresses,
    AskKey,
    Borrow,
    Claim,
    Claimed,
    Died,
    Ended,
    Follow,
    Gone,
    Key,
    Lent,
    Lost,
    Missing,
    Recall,
    Socket,
    Start,
    Started,
    Take,
    Taken,
)
from turn.workers.sockets import Group, Groups
from turn.workers.worker import Hear, Worker

log = structlog.get_logger("turn")

START_PATIENCE = 60.0
"""Seconds for all workers to serve, on a machine that has much else to do."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a worker that has died is replaced; twice as long each time it dies at once."""
STEADY = 30.0
"""Seconds after which a death is a new story."""


class Secrets(NamedTuple):
    """What all workers have to know and nobody else, the same as long as the pool lives."""

    key: bytes
    """Makes nonces, where there is no secret."""
    rows: bytes
    """Hashes the keys of the ledger."""
    salt: int
    """Hashes the sources of strangers."""


class Crew:
    """The workers."""

    def __init__(
        self,
        count: int,
        groups: Groups,
        introduce: Callable[[Worker, list[str]], Sequence[Struct]],
        told: Hear,
        *,
        lasting: bool,
    ) -> None:
        """Prepare; nothing is opened before ``start``.

        :param introduce: what a fresh process has to know, of the addresses that it can listen on:
            the first message of these brings the shared memory, the sockets follow it, and then
            the others.
        :param lasting: a worker that has died goes on where it was, when it is replaced.
        """
        self.secrets = Secrets(
            secrets.token_bytes(32), secrets.token_bytes(32), secrets.randbits(64)
        )
        self.workers = [Worker(n, self._introduce, self._hear, told) for n in range(count)]
        self._groups = groups
        self._words = introduce
        self._addresses: list[str] = []
        self._lasting = lasting
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether every worker is one that is kept alive."""
        return bool(self._keepers) and not any(keeper.done() for keeper in self._keepers)

    @property
    def missing(self) -> list[int]:
        """The numbers of those who do not serve now."""
        return [worker.number for worker in self.workers if not worker.serving.is_set()]

    def ports_in_use(self, host: str) -> int:
        """Ports of a relay address that all together relay from."""
        return self._books.ports_in_use(host)

    async def start(self, addresses: Iterable[str]) -> None:
        """Open the sockets, start the workers, and wait until all serve.

        :raises StartError: a worker cannot serve; it says why.
        :raises ListenError: an address cannot be listened on.
        """
        self._addresses = list(addresses)
        self._groups.open(addresses)
        self._memory = Memory.create(len(self.workers))
        self._ledger = Ledger(self._memory, self.secrets.rows)
        self._books = SharedBooks(self._ledger, 0, lambda *_: None)
        loop = asyncio.get_running_loop()
        self._keepers = [loop.create_task(self._keep(worker)) for worker in self.workers]
        try:
            await self._all_serve()
        except StartError:
            await self.end(leave=False)
            raise

    async def end(self, *, leave: bool) -> None:
        """End them all. :param leave: let others go on with the allocations."""
        if not self._keepers or self._stopping:
            return
        self._stopping = True
        await asyncio.gather(*(worker.stop(leave=leave) for worker in self.workers))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._groups.close()
        self._memory.close()

    def follow(self, addresses: list[str]) -> None:
        """Take in that the machine's addresses have changed."""
        self._addresses = addresses
        self._open_new()
        self.tell_all(Addresses(addresses))

    def tell_all(self, message: Struct) -> None:
        """Tell everyone the same."""
        for worker in self.workers:
            worker.send(message)

    async def ask_all(
        self, question: Callable[[int], Struct], patience: float
    ) -> list[Struct | None]:
        """Ask everyone the same (``Worker.ask``)."""
        return await asyncio.gather(*(each.ask(question, patience) for each in self.workers))

    # Life -----------------------------------------------------------------------------------

    async def _all_serve(self) -> None:
        deadline = time.monotonic() + START_PATIENCE
        for worker in self.workers:
            while not worker.serving.is_set():
                if failed := next((w.failure for w in self.workers if w.failure), ""):
                    raise StartError(failed)
                if time.monotonic() > deadline:
                    raise StartError(f"turn.workers: worker {worker.number} did not start")
                await asyncio.sleep(0.01)

    async def _keep(self, worker: Worker) -> None:
        """See that a place among the workers is held, until the end."""
        pause = FIRST_PAUSE
        while True:
            code = await worker.run()
            if self._stopping:
                return
            self._bury(worker)
            self._tell_others(worker, Died(worker.number))
            if not self._lasting:
                self._tell_others(worker, Lost())
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

    def _tell_others(self, worker: Worker, message: Struct) -> None:
        for other in self.workers:
            if other is not worker:
                other.send(message)

    # Between workers ------------------------------------------------------------------------

    def _introduce(self, worker: Worker) -> None:
        """Tell a fresh process all that it has to know, and let it serve."""
        setup, *more = self._words(worker, self._groups.listened(self._addresses))
        worker.send(setup, [self._memory.descriptor])
        self._hand(worker, self._groups)
        worker.send(Start())
        for message in (Addresses(self._addresses), *more):
            worker.send(message)

    def _open_new(self) -> None:
        fresh = self._groups.follow(self._addresses)
        for worker in self.workers:
            self._hand(worker, fresh)

    @staticmethod
    def _hand(worker: Worker, groups: Iterable[Group]) -> None:
        for group in groups:
            mine = [sock.fileno() for sock in group.of(worker.number)]
            worker.send(Socket(group.kind, group.host, group.port), mine)

    def _hand_again(self, worker: Worker, missing: Missing) -> None:
        """Give a worker what was lost on the way to it, or could not be opened before.

        It looks for it by itself; told of the addresses once more, it would ask at once again.
        """
        place = (missing.kind, missing.host, missing.port)
        if found := [group for group in self._groups if group[:3] == place]:
            self._hand(worker, found)
        else:
            self._open_new()

    def _hear(self, worker: Worker, message: Struct, descriptors: list[int]) -> None:
        """Take what a worker says that is not for its ``Worker`` alone."""
        match message:
            case Started():
                if worker.tally.restarts and self._lasting:  # what it could not go on with is lost
                    self._tell_others(worker, Lost())
            case Missing():
                self._hand_again(worker, message)
            case _:
                self._pass_on(message, descriptors)

    def _pass_on(self, message: Struct, descriptors: list[int]) -> None:
        """Bring what one worker says to another to it."""
        match message:
            case Gone(workers=numbers):
                for number in numbers:
                    self._send(number, message)
            case Claim() | Take() | AskKey() | Borrow():
                if not self._send(message.holding, message):
                    self._send(message.asking, _from_nobody(message))
            case (
                Claimed(asking=number) | Taken(asking=number) | Lent(asking=number)
                | Recall(asking=number) | Ended(holding=number) | Follow(holding=number)
                | Key(asking=number)
            ):  # fmt: skip
                self._send(number, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _send(self, number: int, message: Struct, descriptors: Iterable[int] = ()) -> bool:
        """Tell one worker; False where there is none."""
        serves = 0 <= number < len(self.workers) and self.workers[number].serving.is_set()
        if serves:
            self.workers[number].send(message, list(descriptors))
        return serves


def _from_nobody(question: Claim | Take | AskKey | Borrow) -> Struct:
    """The answer where the worker that is asked is not there."""
    number, asking = question.number, question.asking
    match question:
        case Claim():
            return Claimed(number, asking)
        case Take():
            return Taken(number, asking, 400)
        case AskKey():
            return Key(number, asking, None)
        case Borrow():
            return Lent(number, asking, question.holding, 400)
