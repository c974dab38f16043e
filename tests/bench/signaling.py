"""What a signaling message costs, beside the PeerJS server; and what many nodes add to it.

Both servers carry the same candidates between the same pairs, in turns. Ours says ``ok`` to each,
keeps it until it is acknowledged, and numbers it; PeerJS's does none of that. CPU time is the
server's alone, so that what the clients cost does not count.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from signaling.client import FIRST_DELAY
from tests.bench.cost import cost
from tests.bench.running import OURS, THEIRS, cpu, icebroker, rss, subject
from tests.bench.talk import PATIENCE, IcebrokerCaller, in_steps, open_pairs, run, url_of
from tests.redis_server import redis_server

RESULTS = Path("bench-results")
PAIRS = 20
IDLE = 2000


def main() -> None:
    """Measure, print, keep the numbers."""
    parser = argparse.ArgumentParser(prog="make bench-signaling", description=__doc__)
    parser.add_argument("--turns", type=int, default=20, help="of what a message costs")
    parser.add_argument(
        "--beside", type=Path, action="append", default=[], metavar="CHECKOUT",
        help="have what a message costs there measured in the same run",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the run of nodes")
    parser.add_argument("--clients", type=int, default=10_000, help="who come back after a death")
    parser.add_argument(
        "--realtime", action="store_true",
        help="take the processors from all other programs meanwhile (root); for a busy machine",
    )  # fmt: skip
    parser.add_argument("--only", choices=["cost", "idle", "nodes", "death"])
    options = parser.parse_args()
    if options.realtime:  # the servers inherit it
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        bench = Bench(Path(name), stack, options.seconds)
        if options.only in {None, "cost"}:
            measured["messages per CPU-second"] = cost(Path(name), options.turns, options.beside)
        if options.only in {None, "idle"}:
            measured["KiB RSS per idle connection"] = bench.idle()
        if options.only in {None, "nodes"}:
            measured["across nodes at 2,000 messages/s"] = bench.across_nodes()
        if options.only in {None, "death"}:
            measured["after a node's death"] = bench.death(options.clients)
    for what, figures in measured.items():
        print(f"\n{what}")
        for who, figure in figures.items():
            print(f"  {who:60}{figure:>12,.{1 if figure > 10 else 2}f}")
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / time.strftime("signaling-%Y%m%dT%H%M%S.json")
    file.write_text(json.dumps(measured, indent=2))
    print(f"\nall figures: {file}")


class Bench:
    """One run of everything."""

    def __init__(self, folder: Path, stack: ExitStack, seconds: float) -> None:
        self._folder = folder
        self._stack = stack
        self._seconds = seconds

    # Idle connections ----------------------------------------------------------------------

    def idle(self) -> dict[str, float]:
        """Resident memory that a connection adds, each in a room of two and silent."""
        found = {}
        for name in (OURS, THEIRS):
            with subject(name, self._folder) as (process, port):
                found[name] = run(self._idle(name, port, process.pid))
        return found

    async def _idle(self, name: str, port: int, pid: int) -> float:
        warm = await open_pairs(name, port, 50)
        before = rss(pid)
        callers = await open_pairs(name, port, IDLE // 2, "idle")
        await asyncio.sleep(1)
        grown = rss(pid) - before
        assert len(callers) == IDLE
        assert warm
        return grown / IDLE

    # Many nodes ----------------------------------------------------------------------------

    def across_nodes(self) -> dict[str, float]:
        """Delivery from one node to the other at a steady rate, in milliseconds."""
        server = self._stack.enter_context(redis_server(self._folder / "redis"))
        with (
            icebroker(self._folder, server.url) as (one, port),
            icebroker(self._folder, server.url) as (two, other_port),
        ):
            pids = (one.pid, two.pid)
            found: dict[str, float] = run(self._paced((port, other_port), pids, 2000))
        return found

    async def _paced(
        self, ports: tuple[int, int], pids: Sequence[int], rate: int
    ) -> dict[str, float]:
        pairs = [[IcebrokerCaller(url_of(port, OURS)) for port in ports] for _ in range(PAIRS)]
        callers = [caller for pair in pairs for caller in pair]
        await asyncio.gather(
            *(caller.open(f"r{n}") for n, pair in enumerate(pairs) for caller in pair)
        )
        await asyncio.sleep(0.5)
        for caller in callers:
            caller.delays.clear()
        used, began, sent = sum(map(cpu, pids)), time.perf_counter(), 0
        while (now := time.perf_counter() - began) < self._seconds:
            while sent < now * rate:
                callers[sent % len(callers)].say()
                sent += 1
            await asyncio.sleep(0.001)
        async with asyncio.timeout(PATIENCE):  # all of them arrive, on a busy machine later
            while sum(len(caller.delays) for caller in callers) < sent:  # noqa: ASYNC110 - counted
                await asyncio.sleep(0.05)
        delays = sorted(delay * 1000 for caller in callers for delay in caller.delays)
        return {
            "p50, ms": delays[len(delays) // 2],
            "p99, ms": delays[len(delays) * 99 // 100],
            "messages per CPU-second of both nodes": sent / (sum(map(cpu, pids)) - used),
        }

    def death(self, clients: int) -> dict[str, float]:
        """How soon everyone is back, after a node that held all of them was killed.

        All notice at once, and each tries as our clients do: after a pause that varies, and
        doubles while the other node is busy.
        """
        server = self._stack.enter_context(redis_server(self._folder / "redis-of-death"))
        with (
            icebroker(self._folder, server.url) as (one, port),
            icebroker(self._folder, server.url) as (_, other_port),
        ):
            urls = (url_of(port, OURS), url_of(other_port, OURS))
            found: dict[str, float] = run(self._return(one, *urls, clients))
        return found

    async def _return(
        self, process: "subprocess.Popen[bytes]", url: str, other: str, clients: int
    ) -> dict[str, float]:
        callers = [IcebrokerCaller(url) for _ in range(clients)]
        await in_steps([partial(c.open, f"r{n // 2}") for n, c in enumerate(callers)], 100)
        process.send_signal(signal.SIGKILL)
        began = time.perf_counter()

        async def back(caller: IcebrokerCaller) -> float:
            assert caller.socket is not None
            await caller.socket.closed
            caller.url = other
            await caller.begin(FIRST_DELAY)
            assert await caller.welcomed, "a session was not resumed"
            return time.perf_counter() - began

        times = sorted(await asyncio.gather(*map(back, callers)))
        for caller in callers:
            caller.say()
        async with asyncio.timeout(PATIENCE):
            while not all(caller.received for caller in callers):  # noqa: ASYNC110 - counted
                await asyncio.sleep(0.05)
        return {
            "seconds until half are back": times[clients // 2],
            "seconds until all are back": times[-1],
            "seconds until each has heard its peer": time.perf_counter() - began,
            "resumed a second": clients / times[-1],
        }


if __name__ == "__main__":
    main()
