"""The churn itself: what the service holds before it and after it, and whether that is the same."""

import asyncio
from pathlib import Path
from typing import NamedTuple

from tests.churn.load import allocations, joins
from tests.churn.subject import Holdings, subject
from turn.allocation.replies import REPLY_LIFETIME

ITEMS = 200
"""Items in containers that may be more. What leaks is an item of something, once each coming."""
OBJECTS = 2_000
"""The same of objects: 64 allocations that have gone may still stand in the calendar."""
MEMORY = 16 << 20
"""Bytes that may be more: as many replies are remembered as came in 40 s, up to 65,536 of them, and
an allocator keeps the room that they had."""


class Outcome(NamedTuple):
    """What was held before and after."""

    before: Holdings
    after: Holdings
    grown: dict[str, int]
    """The kinds of objects that there are more of, for whoever looks for a leak."""

    def table(self) -> str:
        """Line by line."""
        rows = zip(Holdings._fields, self.before, self.after, strict=True)
        return "\n".join(f"{name:12} {old:>12,} {new:>12,}" for name, old, new in rows)


def churn(folder: Path, count: int, reply_lifetime: float = REPLY_LIFETIME) -> Outcome:
    """So many allocations and so many joins, after as many that fill what is filled once: modules,
    and the stores that have a bound (replies, meters).

    :param reply_lifetime: seconds that the relay remembers what it has answered.
    """
    with subject(folder, reply_lifetime) as service:
        asyncio.run(allocations(service.turn, count))
        asyncio.run(joins(service.signaling, count))
        before, kinds = service.settled(), service.testimony()["kinds"]
        asyncio.run(allocations(service.turn, count))
        asyncio.run(joins(service.signaling, count))
        after, now = service.settled(before), service.testimony()["kinds"]
    grown = {kind: number - kinds.get(kind, 0) for kind, number in now.items()}
    return Outcome(before, after, {kind: more for kind, more in grown.items() if more > 0})


def check(outcome: Outcome, count: int) -> None:
    """See that nothing is left."""
    before, after = outcome.before, outcome.after
    assert after.idle(), after
    for field in ("tasks", "descriptors", "redis_keys"):
        assert getattr(after, field) <= getattr(before, field), outcome
    assert after.items - before.items < ITEMS + count // 100, outcome
    assert after.objects - before.objects < OBJECTS + count // 100, outcome
    assert after.memory - before.memory < MEMORY, outcome
