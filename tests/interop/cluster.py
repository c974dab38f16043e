"""Several nodes, each a process of its own, behind one real Redis; and what is in front of them."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.interop.process import ROOT, STARTED_WITHIN, free_port
from tests.patience import PATIENCE
from tests.pipes import join, listening
from tests.redis_server import redis_server

TOKEN = "the operator's token of the tests"
SECRET = "the relay's secret of the tests"


class Node:
    """One process: ``icebroker signaling``, or another command."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        settings: dict[str, Any],
        command: str = "signaling",
        lease: float = 8.0,
    ) -> None:
        self.redis_url = redis_url
        self._lease = lease
        self._folder = folder
        self._settings = settings
        self._command = command
        self._start()

    def _start(self) -> None:
        self.port, self.admin_port, self.turn_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self._folder / f"node-{self.port}.log"
        file = self._folder / f"node-{self.port}.toml"
        options = {"listen": f"127.0.0.1:{self.port}", **self._settings}
        lines = ["[signaling]", *(f"{name} = {json.dumps(v)}" for name, v in options.items())]
        lines += ["[redis]", f'url = "{self.redis_url}"', f"lease = {self._lease}"]
        lines += ["[admin]", f'listen = "127.0.0.1:{self.admin_port}"', f'token = "{TOKEN}"']
        lines += ["[turn]", f'listen = ["127.0.0.1:{self.turn_port}"]', f'secret = "{SECRET}"']
        lines += ['allow_peers = ["127.0.0.0/8"]']
        if tenant := options.get("ice_tenant"):
            lines += [f"[turn.tenants.{tenant}]", f'secret = "{SECRET}, of {tenant}"']
        file.write_text("\n".join(lines), "utf-8")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "icebroker", self._command, "-c", str(file)],
                cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until it may be sent clients."""
        deadline = time.monotonic() + STARTED_WITHIN
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                # Somebody else's connection may have got a port that was free a moment ago.
                assert "already in use" in self.log.read_text(), self.log.read_text()
                self._start()
            with (
                suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=1),
            ):
                return
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def metrics(self) -> dict[str, float]:
        """Every sample of the metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as page:
            lines = page.read().decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def operate(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the admin API; what it answers."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.admin_port}/api/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read())

    def sleep(self) -> None:
        """Have it do nothing, with all connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Have it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word, as the loss of its machine does."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it, if it runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            assert "Traceback" not in self.log.read_text(), self.log.read_text()


@contextmanager
def cluster(
    folder: Path, *commands: str, count: int = 2, lease: float = 8.0, **settings: Any
) -> Iterator[list[Node]]:
    """Running nodes.

    :param commands: what they are; none: ``count`` of signaling.
    :param lease: ``redis.lease``: seconds after which one that is killed counts as dead.
    """
    nodes: list[Node] = []
    with redis_server(folder / "redis") as redis:
        try:
            kinds = commands or ("signaling",) * count
            nodes.extend(Node(folder, redis.url, settings, kind, lease) for kind in kinds)
            for node in nodes:
                node.wait_ready()
            yield nodes
        finally:
            for node in nodes:
                node.close()


class Balancer:
    """Carries each connection to the first of its nodes that takes it."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.url = ""
        self.nodes = list(nodes)
        self._open: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection from beginning to end."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            for node in self.nodes:
                with suppress(OSError):
                    there = await asyncio.open_connection("127.0.0.1", node.port)
                    try:
                        await join((reader, writer), there)
                    finally:
                        there[1].transport.abort()
                    return
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@asynccontextmanager
async def balancer(nodes: Iterable[Node]) -> AsyncIterator[Balancer]:
    """Start one; the nodes in the order in which they are tried."""
    made = Balancer(nodes)
    try:
        async with listening(made.accept) as made.url:
            yield made
    finally:
        await made.close()
