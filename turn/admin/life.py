"""The life of a process: services start, run until a signal, let go of their clients, and stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import structlog
import uvloop

from config.heap import settle
from config.systemd import Supervisor
from turn.admin.process import Process, Runs

log = structlog.get_logger("icebroker")

TELL_AFTER = 0.3
"""Seconds after which somebody may wonder why it does not end."""


@runtime_checkable
class Leaves(Protocol):
    """A service that another process can go on with."""

    async def leave(self) -> None:
        """End, and leave what the other one needs."""


@runtime_checkable
class HasClients(Protocol):
    """A service that people would notice the end of."""

    async def refresh(self) -> None:
        """Have ``left`` say what is true now."""

    def left(self) -> Mapping[str, int]:
        """What a drain waits for."""


def run(process: Process, ready: Callable[[], None]) -> None:
    """Run a process until a signal ends it.

    :param ready: called once everything serves.
    :raises StartError, OSError: a service cannot start; those that had are stopped.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live(process, ready))


async def live(process: Process, ready: Callable[[], None]) -> None:
    """Start, wait for a signal, drain, stop; a second signal stops at once.

    SIGHUP reloads. SIGUSR1 is for a restart: end at once, and leave calls to the next process.
    """
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, process.reload)
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        loop.add_signal_handler(number, signals.put_nowait, number)
    leaving = False
    supervisor = Supervisor.of(os.environ)
    feeding = loop.create_task(supervisor.feed())
    started: list[Runs] = []
    try:
        for service in process.services:
            await service.start()
            started.append(service)
        settle()
        ready()
        supervisor.ready()
        leaving = await signals.get() is signal.SIGUSR1
        if not leaving:
            seconds = [process.drain_timeout(service) for service in started]
            supervisor.stopping(max(seconds))
            await _drain(started, seconds, signals)
    finally:
        for service in reversed(started):
            if leaving and isinstance(service, Leaves):
                await service.leave()
            else:
                await service.stop()
        feeding.cancel()


async def _tell_what_is_left(services: Sequence[Runs], seconds: Sequence[float]) -> None:
    """Whoever pressed Ctrl-C should know why it does not end, and how it does."""
    left: dict[str, int] = {}
    longest = 0.0
    for service, most in zip(services, seconds, strict=True):
        if isinstance(service, HasClients):
            await service.refresh()
            there = {noun: count for noun, count in service.left().items() if count}
            left |= there
            longest = max(longest, most) if there else longest
    if longest:
        log.info(
            "ending once clients are gone; press Ctrl-C again (or send a second signal) to end now",
            waiting_for=", ".join(f"{noun}: {count}" for noun, count in left.items()),
            seconds_at_most=longest,
        )


async def _drain(
    services: Sequence[Runs], seconds: Sequence[float], signals: "asyncio.Queue[signal.Signals]"
) -> None:
    """Let go of the clients of all services, each in its own time, or until another signal."""
    draining = [
        asyncio.ensure_future(service.drain(most))
        for service, most in zip(services, seconds, strict=True)
    ]
    second = asyncio.ensure_future(signals.get())
    drained = asyncio.ensure_future(asyncio.wait(draining))
    ends = {drained, second}
    await asyncio.wait(ends, timeout=TELL_AFTER, return_when=asyncio.FIRST_COMPLETED)
    if not (drained.done() or second.done()):
        await _tell_what_is_left(services, seconds)
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (*draining, drained, second):
        task.cancel()
