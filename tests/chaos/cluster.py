"""Signaling nodes as processes of their own, which a test may kill, put to sleep and wake."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.interop.process import ROOT, _wait_ready, free_port
from tests.patience import PATIENCE
from tests.signals import Signalled

DRAIN = 2.0
"""Seconds that clients have to move from a node that is asked to end."""


class Node(Signalled):
    """One ``icebroker signaling``; it keeps its ports over restarts."""

    def __init__(self, folder: Path, redis_url: str, window: float, lease: float) -> None:
        """Prepare. :param window: the resume window of its sessions, in seconds."""
        folder.mkdir(parents=True)
        self.port, self.admin_port = free_port(), free_port()
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self.log = folder / "icebroker.log"
        self._file = folder / "icebroker.toml"
        signaling = {
            "listen": f"127.0.0.1:{self.port}",
            "resume_window": window,
            "max_messages_per_second": 1000,
            "max_message_burst": 1000,
            "max_unauthenticated_per_address": 100,
            "drain_timeout": DRAIN,
            "pages": False,
        }
        lines = ["[signaling]", *(f"{k} = {json.dumps(v)}" for k, v in signaling.items())]
        lines += ["[redis]", f'url = "{redis_url}"', f"lease = {lease}"]
        lines += ["[admin]", f'listen = "127.0.0.1:{self.admin_port}"', "[log]", 'format = "json"']
        self._file.write_text("\n".join(lines))

    def start(self) -> None:
        """Start; ``wait_ready`` says when it serves."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "icebroker", "signaling", "-c", str(self._file)],
                cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Return when it serves."""
        assert self._process is not None
        _wait_ready(self._process, self.admin_port, self.log)

    def kill(self) -> None:
        """End it as a crash does."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def drain(self) -> None:
        """Ask it to end when its clients are elsewhere."""
        self.signal(signal.SIGTERM)

    def ended(self) -> bool:
        """Whether its process is over."""
        assert self._process is not None
        return self._process.poll() is not None

    def ready(self) -> bool:
        """Whether a load balancer would send it clients."""
        with suppress(urllib.error.HTTPError):
            address = f"http://127.0.0.1:{self.admin_port}/readyz"
            with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                return bool(answer.status == 200)
        return False

    def metric(self, name: str) -> float:
        """One sample of the metrics page."""
        address = f"http://127.0.0.1:{self.admin_port}/metrics"
        with urllib.request.urlopen(address, timeout=PATIENCE) as page:
            lines = page.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split(" ")[1])

    def close(self) -> None:
        """End it, whatever it does, and see that it complained of nothing of its own."""
        if self._process is not None and self._process.poll() is None:
            self.wake()
            self.kill()
        text = self.log.read_text() if self.log.exists() else ""
        assert "Traceback" not in text, text


@contextmanager
def cluster(
    folder: Path, redis_urls: Sequence[str], *, window: float, lease: float
) -> Iterator[list[Node]]:
    """Nodes that meet in a Redis, each by a URL of its own, ready to serve."""
    with ExitStack() as stack:
        made = []
        for number, url in enumerate(redis_urls):
            made.append(Node(folder / f"node-{number}", url, window, lease))
            stack.callback(made[-1].close)
            made[-1].start()
        for node in made:
            node.wait_ready()
        try:
            yield made
        except Exception:
            for node in made:  # pytest shows it with the failure: what each of them went through
                print(f"{node.url} logged:\n{node.log.read_text()}")
            raise
