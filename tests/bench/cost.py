"""What a message costs each of several servers: all of them run, and they have their turns.

Turns are short and in changing order, so that what else the machine does meanwhile, or how fast its
processors happen to be, falls on all of them alike. What counts is the ratio within a turn.
"""

import asyncio
import random
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.bench.running import OURS, OURS_PEERJS, THEIRS, cpu, subject
from tests.bench.talk import Caller, open_pairs, run

PAIRS, IN_FLIGHT = 20, 8
TURN, BEFORE = 0.3, 0.05
"""Seconds that a turn is measured, and that it runs before."""
QUIET = 0.03
"""Seconds without a message after which a turn is over."""


class Subject(NamedTuple):
    """A server that runs."""

    protocol: str
    port: int
    pid: int


def cost(folder: Path, turns: int, beside: Sequence[Path]) -> dict[str, float]:
    """Messages per CPU-second on one node without Redis, and what that is of the PeerJS server's.

    :param beside: other checkouts of ours, measured as well.
    """
    with ExitStack() as stack:
        subjects = {}
        for protocol in (OURS, OURS_PEERJS):
            for checkout in (None, *beside):
                name = f"{protocol} of {checkout}" if checkout else protocol
                found = stack.enter_context(subject(protocol, folder, checkout))
                subjects[name] = Subject(protocol, found[1], found[0].pid)
        process, port = stack.enter_context(subject(THEIRS, folder))
        subjects[THEIRS] = Subject(THEIRS, port, process.pid)
        made: dict[str, list[float]] = run(_measure(subjects, turns))
    figures = {name: statistics.median(each) for name, each in made.items()}
    for name, each in made.items():
        if name == THEIRS:
            continue
        ratios = [one / other for one, other in zip(each, made[THEIRS], strict=True)]
        figures[f"{name}, of {THEIRS}'s"] = statistics.median(ratios)
    return figures


async def _measure(subjects: Mapping[str, Subject], turns: int) -> dict[str, list[float]]:
    callers = {
        name: await open_pairs(each.protocol, each.port, PAIRS) for name, each in subjects.items()
    }
    made: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    for turn in range(turns + 1):
        random.shuffle(order)
        for name in order:
            figure = await _turn(callers[name], subjects[name].pid)
            if turn:  # the first one warms up
                made[name].append(figure)
    return made


async def _turn(callers: Sequence[Caller], pid: int) -> float:
    for caller in callers:
        caller.answering = True
        for _ in range(IN_FLIGHT):
            caller.say()
    await asyncio.sleep(BEFORE)
    before, used = _received(callers), cpu(pid)
    await asyncio.sleep(TURN)
    figure = (_received(callers) - before) / (cpu(pid) - used)
    for caller in callers:
        caller.answering = False
        caller.delays.clear()
    last = -1
    while last != _received(callers):
        last = _received(callers)
        await asyncio.sleep(QUIET)
    return figure


def _received(callers: Sequence[Caller]) -> int:
    return sum(caller.received for caller in callers)
