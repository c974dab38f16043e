"""Everything at once that clients can do wrong, beside clients that do nothing wrong."""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.interop.cluster import Node
from tests.interop.process import ROOT
from tests.threats.crowd import ALLOWED, ROOM, Crowd, keep, many
from tests.threats.forged import SECRET

SILENT, STALLED, FLOODERS, LONG = 5_000, 1_000, 20, 20
QUEUE = 64 << 10
"""Bytes that the server keeps for a slow reader, twice: for its socket and in its mailbox."""
PER_SOCKET = 24 << 10
"""Bytes that a socket may cost beside that."""
LASTS = 4.0
"""Seconds that good clients are measured for amid all this."""
TRIES = 3
"""What the crowd does to them shows every time; what else this machine does may pass."""
LIMIT = 0.1
"""Seconds that all but one in a hundred of their messages may take."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node of its own, with limits that a test can reach."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > SILENT + STALLED + 1000, "too few descriptors; raise the limit (ulimit -Hn)"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    settings = {
        "token_secret": SECRET, "allowed_origins": [ALLOWED], "max_queued_bytes": QUEUE,
        "write_timeout": 3, "hello_timeout": 60,
    }  # fmt: skip
    made = Node(tmp_path, "", settings)
    try:
        made.wait_ready()
        _prefer(made.process.pid)
        yield made
    finally:
        made.close()


class Good:
    """Clients that do nothing wrong, and what they tell of how they fare."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def p99(self, seconds: float) -> tuple[float, int]:
        """Of what was written and came in a while: how long all but one in a hundred took at
        most, in seconds, and how many there were."""
        await self._tell()
        await asyncio.sleep(seconds)
        delays = sorted(await self._tell())
        return delays[len(delays) * 99 // 100], len(delays)

    async def _tell(self) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        found: list[float] = json.loads(await self._process.stdout.readline())
        return found


@contextlib.asynccontextmanager
async def good_clients(node: Node) -> AsyncIterator[Good]:
    """Running ones."""
    url = f"ws://127.0.0.1:{node.port}/ws"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.threats.good_clients", url, SECRET,
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 24,
    )  # fmt: skip
    _prefer(process.pid)
    try:
        yield Good(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0


class Clock:
    """How much slower than by itself a process was, because others had the processors."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/schedstat")
        self._ran, self._waited, _ = map(int, self._file.read_text().split())

    def stretch(self) -> float:
        """Since it was made: 1 where the process never waited for a processor."""
        ran, waited, _ = map(int, self._file.read_text().split())
        return 1 + (waited - self._waited) / max(1, ran - self._ran)


def slow_readers(node: Node) -> float:
    """How many were cut because they did not read."""
    return node.metrics()['icebroker_signaling_disconnects_total{reason="slow_reader"}']


def _prefer(pid: int) -> None:
    """Measure a process and not what else this machine does: not least, playing the crowd."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, -15)


def resident(node: Node) -> int:
    """Bytes of memory that the node holds."""
    pages = Path(f"/proc/{node.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


async def test_good_clients_are_served_beside_all_the_others(node: Node) -> None:
    crowd = Crowd(node.port)
    async with good_clients(node) as good:
        alone, _ = await good.p99(2)
        before = resident(node)
        await many(SILENT, crowd.silent)
        await many(STALLED, crowd.stalled)
        repeated = [crowd.flood] * FLOODERS + [crowd.long_header] * LONG
        repeated += [crowd.forge] * 10 + [crowd.cross_site] * 5
        doing = [keep(one) for one in repeated]
        doing += [crowd.noisy(room) for room in range(STALLED // ROOM)]
        tasks = [asyncio.ensure_future(each) for each in doing]
        for _ in range(TRIES):
            clocks = [Clock(node.process.pid), Clock(good.pid)]
            amid, count = await good.p99(LASTS)
            # What they wait for a processor is the machine's doing, not the crowd's.
            limit = LIMIT * (sum(clock.stretch() for clock in clocks) - 1)
            print(f"p99 {amid:.3f} s of {limit:.3f} s, alone {alone:.3f} s; {count} messages")
            if amid < limit and count > 500:
                break
        else:
            pytest.fail("good clients were not served as they should be")
        grown = resident(node) - before
        async with asyncio.timeout(40):  # each has its turn also where all is slow
            while not crowd.had_enough or not slow_readers(node):  # noqa: ASYNC110 - asked as it is
                await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        crowd.close()
    print(f"{grown >> 20} MiB more;", dict(crowd.answers), dict(crowd.codes))
    assert grown < (SILENT + STALLED) * PER_SOCKET + STALLED * 2 * QUEUE
    assert crowd.answers["101"] > SILENT + STALLED
