"""What a signaling message costs, beside the PeerJS server; and what many nodes add to it.

Both servers carry the same candidates between the same pairs, in turns. Ours says ``ok`` to each,
keeps it until it is acknowledged, and numbers it; PeerJS's does none of that. CPU time is the
server's alone, so that what the clients cost does not count.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from signaling.client import FIRST_DELAY
from tests.bench.talk import PATIENCE, Caller, IcebrokerCaller, PeerJsCaller
from tests.interop.process import ROOT, free_port
from tests.redis_server import redis_server

RESULTS = Path("bench-results")
NPM = Path(__file__).parent / "npm"
PAIRS, IN_FLIGHT = 20, 8
IDLE = 2000
OURS, OURS_PEERJS, THEIRS = "icebroker.v1", "our /peerjs", "PeerJS server"
STARTED_WITHIN = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print, keep the numbers."""
    parser = argparse.ArgumentParser(prog="make bench-signaling", description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run")
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
            measured["messages per CPU-second"] = bench.cost(options.turns)
        if options.only in {None, "idle"}:
            measured["KiB RSS per idle connection"] = bench.idle()
        if options.only in {None, "nodes"}:
            measured["across nodes at 2,000 messages/s"] = bench.across_nodes()
        if options.only in {None, "death"}:
            measured["after a node's death"] = bench.death(options.clients)
    for what, figures in measured.items():
        print(f"\n{what}")
        for who, figure in figures.items():
            print(f"  {who:34}{figure:>12,.1f}")
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

    # Messages per CPU-second ---------------------------------------------------------------

    def cost(self, turns: int) -> dict[str, float]:
        """Each subject in its turn, on one node and without Redis; medians."""
        found: dict[str, list[float]] = {}
        for _ in range(turns):
            for name in (OURS, OURS_PEERJS, THEIRS):
                with subject(name, self._folder) as (process, port):
                    made = _run(self._busy(name, port, process.pid))
                    found.setdefault(name, []).append(made)
        return {name: statistics.median(figures) for name, figures in found.items()}

    async def _busy(self, name: str, port: int, pid: int) -> float:
        callers = await _open_pairs(name, port, PAIRS)
        for caller in callers:
            caller.answering = True
            for _ in range(IN_FLIGHT):
                caller.say()
        await asyncio.sleep(0.5)
        before, cpu = _received(callers), _cpu(pid)
        await asyncio.sleep(self._seconds)
        return (_received(callers) - before) / (_cpu(pid) - cpu)

    # Idle connections ----------------------------------------------------------------------

    def idle(self) -> dict[str, float]:
        """Resident memory that a connection adds, each in a room of two and silent."""
        found = {}
        for name in (OURS, THEIRS):
            with subject(name, self._folder) as (process, port):
                found[name] = _run(self._idle(name, port, process.pid))
        return found

    async def _idle(self, name: str, port: int, pid: int) -> float:
        warm = await _open_pairs(name, port, 50)
        before = _rss(pid)
        callers = await _open_pairs(name, port, IDLE // 2, "idle")
        await asyncio.sleep(1)
        grown = _rss(pid) - before
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
            found: dict[str, float] = _run(self._paced((port, other_port), pids, 2000))
        return found

    async def _paced(
        self, ports: tuple[int, int], pids: Sequence[int], rate: int
    ) -> dict[str, float]:
        pairs = [[IcebrokerCaller(_url(port, OURS)) for port in ports] for _ in range(PAIRS)]
        callers = [caller for pair in pairs for caller in pair]
        await asyncio.gather(
            *(caller.open(f"r{n}") for n, pair in enumerate(pairs) for caller in pair)
        )
        await asyncio.sleep(0.5)
        for caller in callers:
            caller.delays.clear()
        cpu, began, sent = sum(map(_cpu, pids)), time.perf_counter(), 0
        while (now := time.perf_counter() - began) < self._seconds:
            while sent < now * rate:
                callers[sent % len(callers)].say()
                sent += 1
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.5)
        delays = sorted(delay * 1000 for caller in callers for delay in caller.delays)
        assert len(delays) == sent, f"{sent - len(delays)} of {sent} did not arrive"
        return {
            "p50, ms": delays[len(delays) // 2],
            "p99, ms": delays[len(delays) * 99 // 100],
            "messages per CPU-second of both nodes": sent / (sum(map(_cpu, pids)) - cpu),
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
            urls = (_url(port, OURS), _url(other_port, OURS))
            found: dict[str, float] = _run(self._return(one, *urls, clients))
        return found

    async def _return(
        self, process: "subprocess.Popen[bytes]", url: str, other: str, clients: int
    ) -> dict[str, float]:
        callers = [IcebrokerCaller(url) for _ in range(clients)]
        await _in_steps([partial(c.open, f"r{n // 2}") for n, c in enumerate(callers)], 100)
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


# Servers ---------------------------------------------------------------------------------------


@contextmanager
def subject(name: str, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A server that is measured; its process and its port."""
    if name == THEIRS:
        port = free_port()
        program = _peer_server()
        command = ["node", str(program), "--port", str(port), "--path", "/", "--host", "127.0.0.1"]
        with _running(command, port, folder / f"peer-{port}.log") as process:
            yield process, port
    else:
        with icebroker(folder) as running:
            yield running


@contextmanager
def icebroker(folder: Path, redis_url: str = "") -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """``icebroker signaling`` with limits that do not bind here."""
    port, admin_port = free_port(), free_port()
    file = folder / f"icebroker-{port}.toml"
    file.write_text(
        f'[signaling]\nlisten = "127.0.0.1:{port}"\nopen = true\npeerjs = true\n'
        "peerjs_capacity = 10000\n"
        "max_messages_per_second = 1000000\nmax_message_burst = 1000000\n"
        f'max_unauthenticated_per_address = 20000\n[redis]\nurl = "{redis_url}"\n'
        f'[admin]\nlisten = "127.0.0.1:{admin_port}"\n'
    )
    command = [sys.executable, "-m", "icebroker", "signaling", "-c", str(file)]
    with _running(command, port, folder / f"icebroker-{port}.log") as process:
        yield process, port


@contextmanager
def _running(command: list[str], port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + STARTED_WITHIN
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def _peer_server() -> Path:
    program = NPM / "node_modules" / "peer" / "dist" / "bin" / "peerjs.js"
    if not program.exists():
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(["npm", "ci", "--prefix", str(NPM), *quiet], check=False)
        if done.returncode:
            sys.exit("npm could not fetch the PeerJS server; --only idle, nodes, death need it not")
    return program


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Clients ---------------------------------------------------------------------------------------


def _url(port: int, name: str) -> str:
    paths = {OURS: "/ws", OURS_PEERJS: "/peerjs/peerjs", THEIRS: "/peerjs"}
    return f"ws://127.0.0.1:{port}{paths[name]}"


async def _open_pairs(name: str, port: int, pairs: int, tag: str = "p") -> list[Caller]:
    url = _url(port, name)
    callers: list[Caller] = []
    for number in range(pairs):
        if name == OURS:
            callers += [IcebrokerCaller(url), IcebrokerCaller(url)]
        else:
            a, b = f"{tag}{number}a", f"{tag}{number}b"
            callers += [PeerJsCaller(url, a, b), PeerJsCaller(url, b, a)]
    await _in_steps([partial(c.open, f"{tag}{n // 2}") for n, c in enumerate(callers)], 100)
    return callers


async def _in_steps(jobs: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    slots = asyncio.Semaphore(at_once)

    async def one(job: Callable[[], Any]) -> Any:
        async with slots:
            return await job()

    return await asyncio.gather(*map(one, jobs))


def _run(work: Any) -> Any:
    gc.collect()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _received(callers: Sequence[Caller]) -> int:
    return sum(caller.received for caller in callers)


def _cpu(pid: int) -> float:
    """Seconds of CPU time that a process has taken, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _rss(pid: int) -> float:
    """Resident memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


if __name__ == "__main__":
    main()
