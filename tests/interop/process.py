"""Icebroker as a process of its own, and the programs that are run against it."""

import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from config.certificate import self_signed

ROOT = Path(__file__).parents[2]
ICEBROKER = (sys.executable, "-X", "dev", "-m", "icebroker")
STARTED_WITHIN = 60.0
"""Seconds, on a machine that is busy with other tests."""


def _ports() -> Iterator[int]:
    """Ports to try, none twice in a long while: whoever had one may start again and want it back.

    None that the kernel hands out by itself, and none of another worker of the same run.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
    ports = range(22000 + worker * 5000, 27000 + worker * 5000)
    # In no order: some programs take the port behind the one that they are given too.
    return itertools.cycle(secrets.SystemRandom().sample(ports, len(ports)))


PORTS = _ports()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now for UDP and TCP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in PORTS:
        with socket.socket(family) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("there is always another one")


class Relay(NamedTuple):
    """A running relay."""

    port: int
    tls_port: int
    admin_port: int
    certificate: Path
    log: Path
    pid: int

    def metrics(self) -> dict[str, float]:
        """Every sample of the metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as page:
            return samples(page.read().decode())


def samples(page: str) -> dict[str, float]:
    """Every sample of a metrics page."""
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


@contextmanager
def relay(
    folder: Path, *, one_port: bool = False, admin_token: str = "", **changes: Any
) -> Iterator[Relay]:
    """Run ``icebroker turn`` on loopback, IPv4 and IPv6, with TLS.

    :param one_port: TLS where TCP is; then there is no DTLS.
    :param admin_token: of the operators' API; empty: there is none.
    """
    certificate, key = self_signed(["127.0.0.1", "::1"], folder)
    port, tls_port, admin_port = free_port(), free_port(), free_port()
    if one_port:
        tls_port, changes = port, {"listen_dtls": [], **changes}
    turn = {
        "listen": [f"127.0.0.1:{port}", f"[::1]:{port}"],
        "listen_tls": [f"127.0.0.1:{tls_port}"],
        "listen_dtls": [f"127.0.0.1:{tls_port}"],
        "tls_certificate": str(certificate),
        "tls_key": str(key),
        "secret": "the shared secret of the tests",
        "allow_peers": ["127.0.0.0/8", "::1/128"],
        "max_allocations_per_user": 0,
        **changes,
    }
    lines = ["[turn]", *(f"{name} = {_toml(value)}" for name, value in turn.items())]
    lines += ["[turn.users]", 'alice = "secretpw"', "[admin]"]
    lines += [
        f'listen = "127.0.0.1:{admin_port}"',
        f'token = "{admin_token}"',
        "[log]",
        'level = "debug"',
    ]
    file, log = folder / "icebroker.toml", folder / "icebroker.log"
    file.write_text("\n".join(lines))
    with icebroker(["turn", "-c", str(file)], admin_port, log) as process:
        yield Relay(port, tls_port, admin_port, certificate, log, process.pid)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + "}"
    return json.dumps(value)


@contextmanager
def icebroker(
    arguments: list[str], admin_port: int, log: Path, *, command: Sequence[str] = ICEBROKER
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command of ours until it is ready; see that it ends in peace."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONWARNINGS": "default"},
        )
        try:
            _wait_ready(process, admin_port, log)
            yield process
            assert process.poll() is None, f"it died:\n{log.read_text()}"
        finally:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
            process.send_signal(signal.SIGTERM)  # do not wait for clients that are still there
            process.wait(10)
    text = log.read_text()
    assert "Traceback" not in text, text


def _wait_ready(process: "subprocess.Popen[bytes]", admin_port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline:
        assert process.poll() is None, f"it did not start:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"it was not ready in time:\n{log.read_text()}")


@contextmanager
def running(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in the background."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)
