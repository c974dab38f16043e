"""``make bench-workers``: what a second process brings, and what sharing costs.

The load generator keeps one CPU busy by itself. What several workers carry more than one shows only
where there are CPUs left for them; the CPU time of a packet and of an allocation shows anywhere.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench import loadgen, network, servers
from tests.bench.network import SERVER, VETH

PACKETS = ["-n", "200", "-l", "172", "-D", "both", "-W", "512"]
ALLOCATIONS = ["-n", "4000", "-N"]
TICKS = os.sysconf("SC_CLK_TCK")


class Figures(NamedTuple):
    """Of one run."""

    packets_per_second: float
    nanoseconds_per_packet: float
    """CPU time of all the relay's processes."""
    allocations_per_second: float
    microseconds_per_allocation: float
    """The same."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-workers", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="times that each has its turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run of packets")
    parser.add_argument("--workers", default="1,2", help="how many, with commas between")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("make bench-workers makes network namespaces, and that needs root")
    wanted = [int(text) for text in options.workers.split(",")]
    found: dict[int, list[Figures]] = {workers: [] for workers in wanted}
    with tempfile.TemporaryDirectory() as name, network.three_hosts():
        program = loadgen.build(Path(name))
        for _ in range(options.turns):
            for workers in wanted:
                found[workers].append(_measure(program, Path(name), workers, options.seconds))
    print(
        f"\n{os.cpu_count()} CPUs, one of them the generator's; medians of {options.turns} turns\n"
    )
    print(f"{'workers':>8}{'packets/s':>12}{'ns/packet':>12}{'allocations/s':>16}{'µs each':>10}")
    for workers, runs in found.items():
        packets, cost, made, each = (
            statistics.median(column) for column in zip(*runs, strict=True)
        )
        print(f"{workers:8}{packets:12,.0f}{cost:12.0f}{made:16,.0f}{each:10.1f}")


def _measure(program: Path, folder: Path, workers: int, seconds: float) -> Figures:
    with _running(folder, workers) as pid:
        before = _cpu_seconds(pid)
        text = _generate(program, pid, [*PACKETS, "-d", str(seconds)])
        delivered = float(re.findall(r"del=([\d.]+)", text)[-1])
        cost = (_cpu_seconds(pid) - before) / (delivered * seconds)
        time.sleep(0.5)  # what it left is closed
        before = _cpu_seconds(pid)
        text = _generate(program, pid, ALLOCATIONS)
        made = re.search(r"ALLOC n=(\d+) secs=[\d.]+ rate=(\d+)/s", text)
        if not made:
            raise RuntimeError(f"the load generator said:\n{text}")
        spent = _cpu_seconds(pid) - before
        return Figures(delivered, 1e9 * cost, float(made[2]), 1e6 * spent / int(made[1]))


def _generate(program: Path, pid: int, options: list[str]) -> str:
    command = [
        str(program), "-k", "1", "-s", VETH.server_for_clients, "-u", servers.USER,
        "-w", servers.PASSWORD, "-A", VETH.client, "-B", VETH.peer, "-c", VETH.client_host,
        "-p", VETH.peer_host, "-P", str(pid), *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@contextmanager
def _running(folder: Path, workers: int) -> Iterator[int]:
    command = servers.icebroker("userspace")(folder, VETH)
    file = Path(command[-1])
    file.write_text(file.read_text().replace("[turn]", f"[turn]\nworkers = {workers}", 1))
    with (folder / "workers.log").open("wb") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", SERVER, *command], cwd=servers.ROOT, stdout=log, stderr=log
        )
    try:
        servers.wait_listening(process)
        time.sleep(2)  # the pool listens before its workers do
        yield process.pid
    finally:
        process.terminate()
        time.sleep(0.2)
        process.terminate()  # at once, whoever is still there
        process.wait(15)


def _cpu_seconds(pid: int) -> float:
    """Of a process and its children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(n) for task in tasks for n in (task / "children").read_text().split()]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(map(_cpu_seconds, children))


if __name__ == "__main__":
    main()
