"""The load generator: built when it is needed, run between the namespaces, its words read."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.bench.network import CLIENT, CLIENT_HOST, PEER, PEER_HOST, SERVER_FOR_CLIENTS

SOURCE = Path(__file__).with_name("loadgen.c")


class Traffic(NamedTuple):
    """What one run of packets showed."""

    packets_per_second: float
    nanoseconds_per_packet: float
    """CPU time of the relay's process, the kernel's work for it included."""
    loss_percent: float
    p50_microseconds: float
    p99_microseconds: float


class Allocations(NamedTuple):
    """What one run of allocations showed."""

    microseconds_each: float
    """CPU time of the relay's process."""
    kibibytes_each: float


def build(folder: Path) -> Path:
    """Compile the generator. :raises RuntimeError: with the compiler's words."""
    program = folder / "loadgen"
    command = ["gcc", "-O2", "-w", "-o", str(program), str(SOURCE), "-lcrypto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load generator does not build:\n{done.stderr}")
    return program


class Generator:
    """Runs the generator against the relay with this process id."""

    def __init__(self, program: Path, pid: int, user: str, password: str) -> None:
        self._command = [
            str(program), "-s", SERVER_FOR_CLIENTS, "-u", user, "-w", password, "-A", CLIENT,
            "-B", PEER, "-c", CLIENT_HOST, "-p", PEER_HOST, "-k", "1", "-P", str(pid),
        ]  # fmt: skip

    def traffic(
        self, allocations: int, size: int, seconds: float, *, indications: bool = False
    ) -> Traffic:
        """Packets both ways, as many as the relay carries; payloads of ``size`` bytes."""
        options = ["-n", str(allocations), "-l", str(size), "-D", "both", "-W", "512"]
        options += ["-d", str(seconds), *(["-m", "ind"] if indications else [])]
        return self._traffic(options)

    def paced(self, rate: int, seconds: float) -> Traffic:
        """Packets client to peer at a steady rate, for their latency."""
        return self._traffic(["-n", "100", "-l", "172", "-r", str(rate), "-d", str(seconds)])

    def allocations(self, count: int) -> Allocations:
        """Allocations with authentication, permission and channel."""
        text = self._run(["-n", str(count), "-N"])
        found = re.search(r"per_alloc=([\d.]+)us .* = (-?[\d.]+) KiB/alloc", text)
        if not found:
            raise RuntimeError(f"the load generator said:\n{text}")
        return Allocations(float(found[1]), float(found[2]))

    def _traffic(self, options: list[str]) -> Traffic:
        text = self._run(options)
        found = re.search(
            r"del=([\d.]+) loss=(-?[\d.]+)% p50=([\d.]+) p99=([\d.]+) .*ns/pkt proc=([\d.]+)", text
        )
        if not found:
            raise RuntimeError(f"the load generator said:\n{text}")
        rate, loss, p50, p99, nanoseconds = map(float, found.groups())
        return Traffic(rate, nanoseconds, loss, p50, p99)

    def _run(self, options: list[str]) -> str:
        done = subprocess.run(
            [*self._command, *options], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr
