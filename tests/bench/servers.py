"""The relays that are compared, each run alone on CPU 0 in the server's namespace."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.network import PEER_HOST, SERVER, SERVER_FOR_CLIENTS, SERVER_FOR_PEERS

ROOT = Path(__file__).parents[2]
USER, PASSWORD = "u", "p"
CONFIGURATION = f"""
[turn]
listen = ["{SERVER_FOR_CLIENTS}:3478"]
relay_addresses = ["{SERVER_FOR_PEERS}"]
allow_peers = ["{PEER_HOST}"]
max_allocations_per_user = 0
max_allocations_per_address = 0
max_unproved_replies_per_second = 1000000
drain_timeout = 0
data_plane = "userspace"
[turn.users]
{USER} = "{PASSWORD}"
"""


def icebroker(folder: Path) -> list[str]:
    """Our relay in user space."""
    file = folder / "bench.toml"
    file.write_text(CONFIGURATION)
    return [sys.executable, "-m", "icebroker", "turn", "-c", str(file)]


def coturn(folder: Path) -> list[str]:
    """coturn with one relay thread, its logs and everything that a relay does not need off."""
    return [
        "turnserver", "-n", "-L", SERVER_FOR_CLIENTS, "-E", SERVER_FOR_PEERS, "--lt-cred-mech",
        "-u", f"{USER}:{PASSWORD}", "-r", "icebroker", "-m", "1", "--no-cli", "--no-tls",
        "--no-dtls", "--no-stdout-log", "--log-file=/dev/null",
        f"--pidfile={folder / 'coturn.pid'}",
    ]  # fmt: skip


RELAYS = {"icebroker userspace": icebroker, "coturn": coturn}


@contextmanager
def running(name: str, folder: Path) -> Iterator[int]:
    """Run a relay; gives its process id."""
    command = ["ip", "netns", "exec", SERVER, "taskset", "-c", "0", *RELAYS[name](folder)]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        _wait_listening(process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(15)


def _wait_listening(process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 15
    listening = ["ip", "netns", "exec", SERVER, "ss", "-Hlnu", "sport", "=", ":3478"]
    while not subprocess.run(listening, capture_output=True, check=True).stdout:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the relay did not start; see its log")
        time.sleep(0.05)
    time.sleep(0.3)
