"""The servers of the signaling bench, each started for one run: ours, and the PeerJS server."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.process import ROOT, free_port

NPM = Path(__file__).parent / "npm"
OURS, OURS_PEERJS, THEIRS = "icebroker.v1", "our /peerjs", "PeerJS server"
STARTED_WITHIN = 20.0
HOUR = 3_600_000
"""In ms: our callers of the PeerJS server say nothing but what is measured."""


@contextmanager
def subject(
    name: str, folder: Path, checkout: Path | None = None
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A server that is measured; its process and its port. :param checkout: whose code is ours."""
    if name == THEIRS:
        port = free_port()
        program = _peer_server()
        command = [
            "node",
            str(program),
            "--port",
            str(port),
            "--path",
            "/",
            "--host",
            "127.0.0.1",
            "--alive_timeout",
            str(HOUR),
        ]
        with _running(command, port, folder / f"peer-{port}.log") as process:
            yield process, port
    else:
        with icebroker(folder, checkout=checkout) as running:
            yield running


@contextmanager
def icebroker(
    folder: Path, redis_url: str = "", checkout: Path | None = None
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
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
    with _running(command, port, folder / f"icebroker-{port}.log", checkout or ROOT) as process:
        yield process, port


@contextmanager
def _running(
    command: list[str], port: int, log: Path, folder: Path = ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
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


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has taken, all threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def rss(pid: int) -> float:
    """Resident memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS:")).split()[1])
