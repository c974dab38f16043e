"""The allocations of all workers, for operators."""

import asyncio
from collections.abc import Mapping, Sequence

from turn.admin.relay import AllocationDetails, AllocationEntry, Allocations
from turn.workers.messages import STEP, End, Inspect, Inspected, List, Listed
from turn.workers.worker import Worker

PATIENCE = 5.0
"""Seconds that an operator waits for a worker that has much to do."""


class PoolAllocations:
    """The allocations of all workers (``service.Collection``)."""

    name, noun, ends = Allocations.name, Allocations.noun, Allocations.ends
    summary, details = AllocationEntry, AllocationDetails

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers

    async def part(self) -> str:
        """Nothing: a relay's allocations are its own."""
        return ""

    async def snapshot(self) -> Mapping[str, AllocationEntry]:
        """Those that live, by number."""
        found: dict[str, AllocationEntry] = {}
        for listed in await asyncio.gather(*(each.ask(List, PATIENCE) for each in self._workers)):
            if isinstance(listed, Listed):
                found |= {entry.id: entry for entry in listed.entries}
        return found

    def summarize(self, thing: AllocationEntry, now: float) -> AllocationEntry:
        """One in a line, as its worker has said it a moment ago."""
        return thing

    async def inspect(self, thing: AllocationEntry, now: float) -> AllocationDetails:
        """All of it. :raises ConnectionError: its worker has no answer: it has just ended."""
        answer = await self._worker_of(thing).ask(
            lambda number: Inspect(number, thing.id), PATIENCE
        )
        if not isinstance(answer, Inspected) or answer.details is None:
            raise ConnectionError(f"allocation {thing.id} has just ended")
        return answer.details

    async def end(self, thing: AllocationEntry) -> None:
        """Close it, if it lives."""
        await self._worker_of(thing).ask(lambda number: End(number, thing.id), PATIENCE)

    def _worker_of(self, thing: AllocationEntry) -> Worker:
        return self._workers[int(thing.id) % STEP]
