"""``make bench``: both data planes beside coturn and plain forwarding, in turns, their medians.

The machine is noisy and its speed drifts, so what counts is the ratio of two that were measured
side by side, in CPU time a packet.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from tests import compiled
from tests.bench import loadgen, network, plot, servers
from tests.bench.network import LOOPBACK, VETH, Place
from tests.bench.subjects import FORWARDING, SUBJECTS, Subject, subject

RESULTS = Path("bench-results")
Measured = dict[str, dict[str, list[float]]]
"""Row -> subject -> figures, turn by turn."""


class Row(NamedTuple):
    """One thing that is measured: lower is better for all of them."""

    name: str
    unit: str
    place: Place
    measure: Callable[[Subject], float]
    forwarding: bool = True
    """Whether there is such a thing for plain forwarding."""


def relaying(
    size: int, seconds: float, *, allocations: int = 100, indications: bool = False
) -> Callable[[Subject], float]:
    """Measures relayed packets, in nanoseconds of CPU time each."""
    return lambda one: one.cost(allocations, size, seconds, indications=indications)


def latency(rate: int, seconds: float) -> Callable[[Subject], float]:
    """Measures the median time from client to peer, in microseconds."""
    return lambda one: one.generator.paced(rate, seconds).p50_microseconds


def memory(one: Subject) -> float:
    """Measures what an allocation takes, in KiB."""
    return one.generator.allocations(4000).kibibytes_each


def allocation(one: Subject) -> float:
    """Measures an allocation with its authentication, in microseconds of CPU time."""
    return one.generator.allocations(2000).microseconds_each


def rows(seconds: float) -> list[Row]:
    """What is measured."""
    packets = "ns/packet"
    # Memory shows in a process that has had none of it before: so this comes first.
    return [
        Row("allocation: memory", "KiB", VETH, memory, False),
        Row("allocation: CPU", "µs", VETH, allocation, False),
        Row("ChannelData, 172 bytes", packets, VETH, relaying(172, seconds)),
        Row("ChannelData, 1200 bytes", packets, VETH, relaying(1200, seconds)),
        Row(
            "172 bytes, 5,000 allocations", packets, VETH, relaying(172, seconds, allocations=5000)
        ),
        Row("indications, 172 bytes", packets, VETH, relaying(172, seconds, indications=True)),
        Row("indications, 1200 bytes", packets, VETH, relaying(1200, seconds, indications=True)),
        Row("ChannelData, 172, loopback", packets, LOOPBACK, relaying(172, seconds), False),
        Row("latency p50 at 5,000/s", "µs", VETH, latency(5000, seconds)),
        Row("latency p50 at 50,000/s", "µs", VETH, latency(50000, seconds)),
        Row("allocation after traffic: CPU", "µs", VETH, allocation, False),
    ]


def main() -> None:
    """Measure, print, keep the numbers and the picture."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="times that each has its turn")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one run of packets")
    parser.add_argument("--only", default="", help="only rows whose name has this text")
    parser.add_argument("--pure", action="store_true", help="ours as it is here, not compiled")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("make bench makes network namespaces, and that needs root")
    wanted = [row for row in rows(options.seconds) if options.only in row.name]
    if not wanted:
        sys.exit(f'no row has "{options.only}" in its name')
    with tempfile.TemporaryDirectory() as name, network.three_hosts():
        measured = _measure(Path(name), wanted, options.turns, pure=options.pure)
    _print(wanted, measured, "not compiled" if options.pure else "compiled")
    _keep(wanted, measured)


def _measure(folder: Path, wanted: list[Row], turns: int, *, pure: bool) -> Measured:
    """Everything in turns: A B C D A B C D …"""
    ours = servers.ROOT if pure else compiled.build(folder)
    program = loadgen.build(folder)
    measured: Measured = {row.name: {} for row in wanted}
    for turn in range(turns):
        for place in (VETH, LOOPBACK):
            for name in SUBJECTS:
                mine = [
                    row
                    for row in wanted
                    if row.place is place and (row.forwarding or name != FORWARDING)
                ]
                if not mine:
                    continue
                print(f"turn {turn + 1} of {turns}, {place.name}: {name} …", file=sys.stderr)
                with subject(name, program, folder, place, ours) as one:
                    for row in mine:
                        measured[row.name].setdefault(name, []).append(row.measure(one))
    return measured


def _print(wanted: Iterable[Row], measured: Measured, how: str) -> None:
    machine = f"{os.cpu_count()} CPUs, Linux {os.uname().release}"
    print(f"\nIcebroker, {how}, beside coturn {_coturn_version()}; {machine}")
    print("medians; lower is better")
    print("in brackets: how many times less than coturn, smallest and largest of the turns\n")
    print(f"{'':30}{'unit':>10}" + "".join(f"{name:>28}" for name in SUBJECTS))
    for row in wanted:
        cells = [_cell(measured[row.name], name) for name in SUBJECTS]
        print(f"{row.name:30}{row.unit:>10}" + "".join(f"{cell:>28}" for cell in cells))


def _cell(figures: dict[str, list[float]], name: str) -> str:
    value = _median(figures.get(name, []))
    if math.isnan(value) or name == servers.COTURN:
        return "-" if math.isnan(value) else f"{value:.1f}"
    pairs = zip(figures[name], figures[servers.COTURN], strict=True)
    ratios = [theirs / ours for ours, theirs in pairs if ours > 0 and not math.isnan(theirs)]
    return f"{value:.1f} ({min(ratios):.1f}-{max(ratios):.1f})" if ratios else f"{value:.1f}"


def _median(figures: Iterable[float]) -> float:
    """Of the turns that have one; not a number where none has."""
    found = [figure for figure in figures if not math.isnan(figure)]
    return statistics.median(found) if found else math.nan


def _keep(wanted: Iterable[Row], measured: Measured) -> None:
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / time.strftime("relay-%Y%m%dT%H%M%S")
    stem.with_suffix(".json").write_text(json.dumps(measured, indent=2))
    charts = [
        plot.Chart(
            f"{row.name} ({row.place.name}), {row.unit}",
            {n: m for n, v in measured[row.name].items() if not math.isnan(m := _median(v))},
        )
        for row in wanted
    ]
    stem.with_suffix(".svg").write_text(plot.draw(charts))
    print(f"\nall figures: {stem}.json; the picture: {stem}.svg")


def _coturn_version() -> str:
    done = subprocess.run(["turnserver", "--version"], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1] if done.stdout else "?"


if __name__ == "__main__":
    main()
