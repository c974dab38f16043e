"""``make bench``: the user-space relay beside coturn, in turns, medians of the turns.

The machine is noisy and its speed drifts, so what counts is the ratio of two that were measured
side by side, in CPU time a packet.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tests.bench import loadgen, network, servers

RESULTS = Path("bench-results")
MOST_LOST_PERCENT = 1
TRIES = 3
"""Of a run in which more was lost: something else had the processors."""
OURS, THEIRS = "icebroker userspace", "coturn"


class Row(NamedTuple):
    """One thing that is measured: lower is better for all of them."""

    name: str
    unit: str
    measure: Callable[[loadgen.Generator], float]


def relaying(
    size: int, seconds: float, *, indications: bool = False
) -> Callable[[loadgen.Generator], float]:
    """Measures relayed packets, in nanoseconds of CPU time each."""

    def measure(generator: loadgen.Generator) -> float:
        lost: list[float] = []
        while len(lost) < TRIES:
            found = generator.traffic(100, size, seconds, indications=indications)
            if found.loss_percent <= MOST_LOST_PERCENT:
                return found.nanoseconds_per_packet
            lost.append(found.loss_percent)
        percents = ", ".join(f"{one:.1f} %" for one in lost)
        sys.exit(f"of the packets {percents} were lost: try again when this machine has less to do")

    return measure


def rows(seconds: float) -> list[Row]:
    """What is measured."""
    return [
        Row("ChannelData, 172 bytes", "ns/packet", relaying(172, seconds)),
        Row("ChannelData, 1200 bytes", "ns/packet", relaying(1200, seconds)),
        Row("indications, 172 bytes", "ns/packet", relaying(172, seconds, indications=True)),
        Row("latency p50 at 5,000/s", "µs", lambda g: g.paced(5000, seconds).p50_microseconds),
        Row("allocation: CPU", "µs", lambda g: g.allocations(2000).microseconds_each),
        Row("allocation: memory", "KiB", lambda g: g.allocations(4000).kibibytes_each),
    ]


def main() -> None:
    """Measure, print, keep the numbers."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="times that each relay has its turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run of packets")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("make bench makes network namespaces, and that needs root")
    with tempfile.TemporaryDirectory() as name, network.three_hosts():
        measured = _measure(Path(name), rows(options.seconds), options.turns)
    _print(rows(options.seconds), measured)
    _keep(measured)


def _measure(folder: Path, wanted: list[Row], turns: int) -> dict[str, dict[str, list[float]]]:
    """Each relay's figures by row, turn by turn: A B A B …"""
    program = loadgen.build(folder)
    measured: dict[str, dict[str, list[float]]] = {name: {} for name in (OURS, THEIRS)}
    for turn in range(turns):
        for name in (OURS, THEIRS):
            print(f"turn {turn + 1} of {turns}: {name} …", file=sys.stderr, flush=True)
            with servers.running(name, folder) as pid:
                generator = loadgen.Generator(program, pid, servers.USER, servers.PASSWORD)
                for row in wanted:
                    measured[name].setdefault(row.name, []).append(row.measure(generator))
    return measured


def _print(wanted: Iterable[Row], measured: dict[str, dict[str, list[float]]]) -> None:
    machine = f"{os.cpu_count()} CPUs, Linux {os.uname().release}"
    print(f"\nIcebroker beside coturn {_coturn_version()}; {machine}; medians; lower is better\n")
    print(f"{'':26}{'icebroker':>12}{'coturn':>12}{'unit':>12}{'ratio':>8}{'spread of ratio':>18}")
    for row in wanted:
        ours, theirs = measured[OURS][row.name], measured[THEIRS][row.name]
        ratios = [a / b if b else float("nan") for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{row.name:26}{statistics.median(ours):12.1f}{statistics.median(theirs):12.1f}"
            f"{row.unit:>12}{statistics.median(ratios):8.2f}"
            f"{min(ratios):12.2f}-{max(ratios):.2f}"
        )
    print("\npackets per CPU-second:")
    for row in list(wanted)[:3]:
        for name in (OURS, THEIRS):
            rate = 1e9 / statistics.median(measured[name][row.name])
            print(f"  {row.name:26}{name:22}{rate:10,.0f}")


def _keep(measured: dict[str, dict[str, list[float]]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / time.strftime("relay-%Y%m%dT%H%M%S.json")
    file.write_text(json.dumps(measured, indent=2))
    print(f"\nall figures: {file}")


def _coturn_version() -> str:
    done = subprocess.run(["turnserver", "--version"], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1] if done.stdout else "?"


if __name__ == "__main__":
    main()
