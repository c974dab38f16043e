"""``python -m tests.bench.restarts``: what is lost while the relay's process dies and comes back.

Packets go both ways through many channels at a steady rate, while the process is killed (or asked
to restart) again and again; each time, a client of its own has its allocation refreshed. At the end
nothing may be left.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench import loadgen
from tests.turn.kernel.hosts import Network, network
from tests.turn.kernel.restarts import Call, Process, bpffs
from turn.codec.registry import Method

HOW = {"kill": signal.SIGKILL, "restart": signal.SIGUSR1}
NO_LIMITS = (
    "env", "ICEBROKER_TURN__MAX_ALLOCATIONS_PER_USER=0",
    "ICEBROKER_TURN__MAX_ALLOCATIONS_PER_ADDRESS=0",
    "ICEBROKER_TURN__MAX_UNPROVED_REPLIES_PER_SECOND=1000000",
)  # fmt: skip
BACK = '"allocations of the last process go on"'
SETTLES = 3.0
"""Seconds before the first end: the kernel has all routes then."""


class Sent(NamedTuple):
    """What the generator told at its end."""

    arrived: int
    lost: int


class Generator:
    """Sends at a steady rate for so long, beside what else happens."""

    def __init__(self, program: Path, found: Network, options: argparse.Namespace) -> None:
        seconds = SETTLES + options.times * options.each
        self._process = subprocess.Popen(
            [
                str(program), "-k", "1", "-s", found.server.ipv4, "-u", "alice", "-w", "pw",
                "-A", found.client.namespace, "-B", found.peer.namespace, "-c", found.client.ipv4,
                "-p", found.peer.ipv4, "-P", str(os.getpid()), "-n", str(options.allocations),
                "-l", "172", "-D", "both", "-r", str(options.rate), "-d", str(seconds), "-Z", "1",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @property
    def is_sending(self) -> bool:
        """Whether it still is at it."""
        return self._process.poll() is None

    def result(self) -> Sent:
        """Wait for its end. :raises RuntimeError: with its words, where it has failed."""
        text, _ = self._process.communicate()
        found = re.findall(r"rc=(\d+) rp=(\d+) .*lost=(-?\d+)", text)
        if not found:
            raise RuntimeError(f"the load generator said:\n{text}")
        to_clients, to_peers, lost = map(int, found[-1])
        return Sent(to_clients + to_peers, lost)


def descriptors(process: Process) -> int:
    """How many the relay has open."""
    return sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())


def run(found: Network, folder: Path, options: argparse.Namespace) -> bool:
    """End the process so often; whether all was as promised."""
    program = loadgen.build(folder)
    process = Process(found, folder)
    process.start(*NO_LIMITS)
    call = Call(found)
    call.begin()
    generator = Generator(program, found, options)
    time.sleep(SETTLES + 1)
    held: list[int] = []
    gone_on = 0
    for number in range(1, options.times + 1):
        process.end(HOW[options.how])
        ended = time.monotonic()
        process.start(*NO_LIMITS)
        while process.log.count(BACK) < number:
            process.wait(lambda: True)  # it lives
            time.sleep(0.02)
        call.ask(Method.REFRESH)
        call.admit()
        gone_on += generator.is_sending
        away = time.monotonic() - ended
        held.append(descriptors(process))
        print(f"{number:3}: back after {away:.1f} s, Refresh succeeded, {held[-1]} descriptors")
        time.sleep(0.3)
    sent = generator.result()
    call.close()
    process.end(signal.SIGTERM)
    left = [path.name for path in (folder / "bpf" / "relay").rglob("*") if not path.is_dir()]
    left += [path.name for path in (folder / "state").iterdir() if path.name != "lock"]
    print(f"{sent.arrived} packets arrived, {sent.lost} were lost, in {gone_on} of {options.times}")
    print(f"descriptors more than at first: {held[-1] - held[0]}; left at the end: {left or None}")
    return not (sent.lost or left or held[-1] > held[0] or gone_on < options.times)


def main() -> None:
    """Have it done, and say how it went."""
    parser = argparse.ArgumentParser(prog="make bench-restarts", description=__doc__)
    parser.add_argument("--how", choices=HOW, default="kill")
    parser.add_argument("--times", type=int, default=20, help="in a row")
    parser.add_argument("--rate", type=int, default=50_000, help="packets a second, both ways")
    parser.add_argument("--allocations", type=int, default=100)
    parser.add_argument("--each", type=float, default=8.0, help="seconds that one may take")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this makes network namespaces, and that needs root")
    with tempfile.TemporaryDirectory() as name, bpffs(Path(name) / "bpf"), network() as found:
        good = run(found, Path(name), options)
    sys.exit(0 if good else "not all was kept")


if __name__ == "__main__":
    main()
