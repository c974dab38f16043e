"""The command ``icebroker`` in processes of its own, in a folder without a setting."""

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.patience import PATIENCE

COMMAND = Path(sys.executable).with_name("icebroker")
NO_DRAIN = 20.0
"""Seconds: less than clients are given by default (30), and enough on a busy machine."""


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    problems: list[str]
    """The lines on standard error."""


class Ports(NamedTuple):
    """Free ports for a service."""

    turn: int
    signaling: int
    admin: int

    def variables(self) -> dict[str, str]:
        """The environment that makes a service use them."""
        return {
            "ICEBROKER_TURN__LISTEN": f"127.0.0.1:{self.turn}",
            "ICEBROKER_SIGNALING__LISTEN": f"127.0.0.1:{self.signaling}",
            "ICEBROKER_ADMIN__LISTEN": f"127.0.0.1:{self.admin}",
        }


class Shell:
    """A folder and an environment without a setting in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ours = {name: v for name, v in os.environ.items() if not name.startswith("ICEBROKER_")}
        self._environment = {**ours, "XDG_CACHE_HOME": str(folder / "cache")}

    def write(self, toml: str) -> None:
        """Put a configuration where it is found unasked."""
        (self.folder / "icebroker.toml").write_text(toml, "utf-8")

    def run(self, *arguments: str, **variables: str) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            [COMMAND, *arguments],
            cwd=self.folder,
            env=self._environment | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.splitlines())

    @contextmanager
    def running(self, *arguments: str, **variables: str) -> Iterator["Service"]:
        """Run a service; kill it if the test has not ended it."""
        out, log = self.folder / "out", self.folder / "log"
        with out.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(
                [COMMAND, *arguments],
                cwd=self.folder,
                env=self._environment | variables,
                stdout=stdout,
                stderr=stderr,
            )
        service = Service(process, out, log)
        try:
            yield service
        finally:
            process.kill()
            process.wait(PATIENCE)


class Service(NamedTuple):
    """A service that runs."""

    process: "subprocess.Popen[bytes]"
    out: Path
    log: Path

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Wait until something is true of it while it runs."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def banner(self) -> str:
        """Wait until it says that it runs; what it says."""
        self.wait_for(lambda: "Ctrl-C" in self.out.read_text())
        return self.out.read_text()

    def end(self, number: signal.Signals) -> float:
        """Send it a signal, wait until it ends in peace; gives the seconds that it took."""
        begin = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()
        return time.monotonic() - begin


def get(url: str, context: ssl.SSLContext | None = None) -> str:
    """A page. :raises urllib.error.URLError: there is none."""
    with urllib.request.urlopen(url, timeout=PATIENCE, context=context) as page:
        text: str = page.read().decode()
        return text


def answers(url: str) -> bool:
    """Whether there is a page."""
    try:
        return bool(get(url))
    except OSError:
        return False
