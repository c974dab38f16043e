"""A worker's answers to what operators ask of the relay, by way of the pool."""

import asyncio
import resource
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from msgspec import Struct

from turn.server import TurnService
from turn.telling import Told as Happened
from turn.telling import facts_of
from turn.webhooks import KINDS
from turn.workers.figures import counts_of
from turn.workers.messages import (
    Done,
    End,
    Inspect,
    Inspected,
    List,
    Listed,
    Revoke,
    Snapshot,
    Told,
)

BREATH = 100
"""Entries between two moments in which the worker relays."""
MOST_EVENTS = 500
"""A second: what is refused to a flood is not worth a flood of its own."""

FDS = Path("/proc/self/fd")

Send = Callable[[Struct], None]


def open_fds() -> int:
    """How many files this process has open; also where it may open none to count them."""
    if counted := FDS.stat().st_size:  # Linux 6.2
        return counted
    try:
        return sum(1 for _ in FDS.iterdir())
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Answers:
    """Answers for one relay."""

    def __init__(self, service: TurnService, send: Send) -> None:
        self._service = service
        self._allocations = service.collections[0]
        self._send = send

    def report(self, number: int) -> None:
        """How it goes."""
        service, gauges = self._service, self._service.gauges
        live, relayed = service.of_tenants()
        self._send(
            Snapshot(
                number=number,
                counts=counts_of(service.stats, service.routes.in_user_space(), relayed),
                allocations=gauges.allocations(),
                tenants=live,
                ports_in_use=gauges.ports_in_use(),
                certificate_expiry=gauges.certificate_expiry(),
                cpu_seconds=time.process_time(),
                open_fds=open_fds(),
                max_fds=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            )
        )

    async def answer(self, question: Struct) -> None:
        """Anything that may take a while."""
        allocations = self._allocations
        match question:
            case List(number):
                things = iter((await allocations.snapshot()).values())
                entries = []
                while some := list(islice(things, BREATH)):
                    now = time.monotonic()
                    entries += [allocations.summarize(thing, now) for thing in some]
                    await asyncio.sleep(0)
                self._send(Listed(number, entries))
            case Inspect(number, name):
                thing = (await allocations.snapshot()).get(name)
                found = await allocations.inspect(thing, time.monotonic()) if thing else None
                self._send(Inspected(number, found))
            case End(number, name):
                thing = (await allocations.snapshot()).get(name)
                if thing is not None:
                    await allocations.end(thing)
                self._send(Done(number))
            case Revoke(number, user, until, spent):
                self._send(Done(number, self._service.heed(user, until, spent)))


class Events:
    """Tells the pool of what happens, while somebody watches or a back end is told of it."""

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self.on = False
        self.webhooks = False
        """Whether each event of an allocation is owed to somebody (``Watch``)."""
        self._second = 0
        self._told = 0
        self._lost = 0

    def tell(self, kind: str, told: Happened) -> None:
        """Take an event (``turn.telling.Tell``)."""
        if self.webhooks and kind in KINDS:
            self._send(Told(kind, dict(facts_of(told)), 0))
            return
        if not self.on:
            return
        second = int(self._clock())
        if second != self._second:
            self._second, self._told = second, 0
        if self._told >= MOST_EVENTS:
            self._lost += 1
            return
        self._told += 1
        self._send(Told(kind, dict(facts_of(told)), self._lost))
        self._lost = 0
