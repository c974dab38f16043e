"""The load generator: built when it is needed, run between the namespaces, its words read."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.bench.network import Place

SOURCE = Path(__file__).with_name("loadgen.c")
WARM_UP = 1.5
"""Seconds of packets that are not measured: neighbours are found, the kernel takes routes over."""


class Traffic(NamedTuple):
    """What one run of packets showed."""

    packets_per_second: float
    relay_nanoseconds: float
    """CPU time of the relay's process a packet, the kernel's work for it included."""
    own_nanoseconds: float
    """The same of the generator's, and with it all that the kernel did as its packets arrived."""
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
    command = ["gcc", "-O2", "-Wall", "-o", str(program), str(SOURCE), "-lcrypto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load generator does not build:\n{done.stderr}")
    return program


class Generator:
    """Runs the generator on CPU 1: against a relay, or from client to peer without one."""

    def __init__(self, program: Path, options: list[str]) -> None:
        self._command = [str(program), "-k", "1", *options]

    @classmethod
    def for_relay(
        cls, program: Path, place: Place, pid: int, user: str, password: str
    ) -> "Generator":
        """Against the relay with this process id."""
        return cls(program, [
            "-s", place.server_for_clients, "-u", user, "-w", password, "-A", place.client,
            "-B", place.peer, "-c", place.client_host, "-p", place.peer_host, "-P", str(pid),
        ])  # fmt: skip

    @classmethod
    def without(cls, program: Path, place: Place, peer: tuple[str, str]) -> "Generator":
        """Straight to a peer, given as namespace and address."""
        namespace, host = peer
        options = ["-X", "-A", place.client, "-B", namespace, "-c", place.client_host, "-p", host]
        return cls(program, options)

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
        text = self._run([*options, "-Z", str(WARM_UP)])
        found = re.findall(
            r"del=([\d.]+) loss=(-?[\d.]+)% p50=([\d.]+) p99=([\d.]+) "
            r".*ns/pkt proc=([\d.]+) self=([\d.]+)",
            text,
        )
        if len(found) != 2:
            raise RuntimeError(f"the load generator said:\n{text}")
        rate, loss, p50, p99, relay, own = map(float, found[1])
        return Traffic(rate, relay, own, loss, p50, p99)

    def _run(self, options: list[str]) -> str:
        done = subprocess.run(
            [*self._command, *options], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr
