"""The relays that are compared, each run alone on CPU 0 in the server's namespace."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.network import SERVER, Place

ROOT = Path(__file__).parents[2]
USER, PASSWORD = "u", "p"
CONFIGURATION = """
[turn]
listen = ["{place.server_for_clients}:3478"]
relay_addresses = ["{place.server_for_peers}"]
allow_peers = ["{place.peer_host}"]
max_allocations_per_user = 0
max_allocations_per_address = 0
max_unproved_replies_per_second = 1000000
drain_timeout = 0
data_plane = "{plane}"
[turn.users]
{user} = "{password}"
"""


def icebroker(plane: str) -> Callable[[Path, Place], list[str]]:
    """Our relay with this data plane."""

    def command(folder: Path, place: Place) -> list[str]:
        file = folder / f"{plane}.toml"
        file.write_text(
            CONFIGURATION.format(place=place, plane=plane, user=USER, password=PASSWORD)
        )
        return [sys.executable, "-m", "icebroker", "turn", "-c", str(file)]

    return command


def coturn(folder: Path, place: Place) -> list[str]:
    """coturn with one relay thread, its logs and everything that a relay does not need off."""
    return [
        "turnserver", "-n", "-L", place.server_for_clients, "-E", place.server_for_peers,
        "--lt-cred-mech", "-u", f"{USER}:{PASSWORD}", "-r", "icebroker", "-m", "1", "--no-cli",
        "--no-tls", "--no-dtls", "--no-stdout-log", "--log-file=/dev/null",
        "--allow-loopback-peers", f"--pidfile={folder / 'coturn.pid'}",
    ]  # fmt: skip


KERNEL, USERSPACE, COTURN = "icebroker kernel", "icebroker userspace", "coturn"
RELAYS = {KERNEL: icebroker("kernel"), USERSPACE: icebroker("userspace"), COTURN: coturn}


@contextmanager
def running(name: str, folder: Path, place: Place, ours: Path) -> Iterator[int]:
    """Run a relay; gives its process id.

    :param ours: where the packages of Icebroker are.
    """
    command = ["ip", "netns", "exec", SERVER, "taskset", "-c", "0", *RELAYS[name](folder, place)]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ours, stdout=log, stderr=log)
    try:
        wait_listening(process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(15)


def wait_listening(process: "subprocess.Popen[bytes]") -> None:
    """Wait until a relay listens. :raises RuntimeError: it does not."""
    deadline = time.monotonic() + 15
    listening = ["ip", "netns", "exec", SERVER, "ss", "-Hlnu", "sport", "=", ":3478"]
    while not subprocess.run(listening, capture_output=True, check=True).stdout:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the relay did not start; see its log")
        time.sleep(0.05)
    time.sleep(0.3)
