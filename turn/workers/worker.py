"""One worker as its pool sees it: a process, a link, and what it last said of itself."""

import asyncio
import itertools
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from msgspec import Struct

from turn.telling import Facts
from turn.workers.figures import Tally
from turn.workers.link import Link
from turn.workers.messages import (
    FROM_WORKER,
    AskKey,
    Borrow,
    Claim,
    Claimed,
    Done,
    Drained,
    Ended,
    Failed,
    Follow,
    Gone,
    Inspected,
    Key,
    Lent,
    Listed,
    Missing,
    Place,
    Recall,
    Report,
    Snapshot,
    Started,
    Stop,
    Take,
    Taken,
    Told,
)

log = structlog.get_logger("turn")

LOOK = 5.0
"""Seconds between looks at a worker; what it last said is no older when it dies."""
STUCK = 30.0
"""Seconds that a worker has to answer: longer than any work takes, on any machine."""
FAREWELL = 5.0
"""Seconds that a worker has to close everything before it is killed."""
PACKAGES = Path(__file__).parents[2]
"""Where this very version of the package is."""

Pass = Callable[["Worker", Struct, list[int]], None]
"""Takes what a worker says that is for its pool, and descriptors, which it owns then."""

Hear = Callable[[int, str, Facts, int], None]
"""Takes an event of a worker: its number, the event's kind and facts, how many were lost."""


class Worker:
    """A place among the workers, and the process that holds it now."""

    def __init__(
        self,
        number: int,
        introduce: Callable[["Worker"], None],
        pass_on: Pass,
        told: Hear,
    ) -> None:
        """Prepare; ``run`` begins.

        :param introduce: sends a fresh process all that it has to know.
        """
        self._told = told
        self.number = number
        self.tally = Tally()
        self.serving = asyncio.Event()
        self.drained = asyncio.Event()
        self.failure = ""
        """Why it could not serve, in its own words."""
        self.listening: list[Place] = []
        self.began = 0.0
        self._introduce = introduce
        self._pass_on = pass_on
        self._link: Link | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._asked: dict[int, asyncio.Future[Struct | None]] = {}
        self._numbers = itertools.count(1)

    @property
    def pid(self) -> int | None:
        """Of its process, while there is one."""
        return self._process.pid if self._process else None

    async def run(self) -> int | None:
        """Start a process and wait for its end; gives its exit code, None: it did not start."""
        self.began, self.failure = time.monotonic(), ""
        try:
            ours, process = await self._begin()
        except OSError as error:
            self.failure = f"turn.workers: no process can be started: {error.strerror}"
            return None
        self._link = link = Link(ours, FROM_WORKER, self._heard, self._lost)
        self._introduce(self)
        guard = asyncio.get_running_loop().create_task(self._guard(process))
        try:
            code = await process.wait()
            await link.end(FAREWELL)  # its last words
            return code
        finally:
            guard.cancel()
            self._lost()

    async def _begin(self) -> tuple[socket.socket, asyncio.subprocess.Process]:
        """Start a process; gives our end of the link to it. :raises OSError: it cannot be."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = process = await _spawn(theirs.fileno())
            except BaseException:
                ours.close()
                raise
        return ours, process

    async def _guard(self, process: asyncio.subprocess.Process) -> None:
        """Kill a process that lives and does nothing: nobody else would serve its clients."""
        while True:
            await asyncio.sleep(LOOK)
            serves = self.serving.is_set()
            if serves and await self.ask(Report, STUCK) is None and self.serving.is_set():
                log.error("a worker does not answer, and is killed", worker=self.number)
                process.kill()

    def send(self, message: Struct, descriptors: Sequence[int] = ()) -> None:
        """Tell it something; one that is not there hears nothing."""
        if self._link is not None:
            self._link.send(message, descriptors)

    async def ask(self, question: Callable[[int], Struct], patience: float) -> Struct | None:
        """Ask something; None where the worker is not there, or has no answer in time.

        :param question: makes it, of the number that the answer will have.
        """
        if not self.serving.is_set():
            return None
        number = next(self._numbers)
        answer: asyncio.Future[Struct | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.send(question(number))
        try:
            async with asyncio.timeout(patience):
                return await answer
        except TimeoutError:
            return None
        finally:
            self._asked.pop(number, None)

    async def stop(self, *, leave: bool = False) -> None:
        """Let it close everything and end; kill it where it does not.

        :param leave: let another process go on with the allocations.
        """
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.send(Stop(leave))
        try:
            async with asyncio.timeout(FAREWELL):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._link is not None:
            await self._link.end(FAREWELL)

    def _heard(self, message: Struct, descriptors: list[int]) -> None:
        match message:
            case Started(listening):
                self.listening = listening
                self.serving.set()
                self._pass_on(self, message, [])
            case Failed(reason):
                self.failure = reason
                self.send(Stop())
            case Drained():
                self.drained.set()
            case Snapshot(number=number):
                self.tally.last = message
                self._answered(number, message)
            case Listed(number) | Inspected(number) | Done(number):
                self._answered(number, message)
            case Told(kind, facts, lost):
                self._told(self.number, kind, facts, lost)
            case (
                Missing() | Gone() | Claim() | Claimed() | Take() | Taken() | Follow()
                | AskKey() | Key() | Borrow() | Lent() | Recall() | Ended()
            ):  # fmt: skip
                self._pass_on(self, message, descriptors)
                return
        for descriptor in descriptors:
            os.close(descriptor)

    def _answered(self, number: int, message: Struct | None) -> None:
        answer = self._asked.get(number)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def _lost(self) -> None:
        """The process is gone, or about to be: a worker without its pool ends."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self.serving.clear()
        self.drained.set()
        for number in self._asked:
            self._answered(number, None)


async def _spawn(descriptor: int) -> asyncio.subprocess.Process:
    # -P: what lies in the current folder is nobody's to import; this version of us is.
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "turn.workers.child",
        str(descriptor),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(descriptor,),
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
    )
