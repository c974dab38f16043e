"""What is compared, and what a packet costs each: relays, plain forwarding, the generator alone.

A relay in user space costs what its process takes. The kernel's work for a packet of the kernel
plane, or of plain forwarding, is done while the generator sends: so what counts is what the
generator takes more than when it sends to a peer next door. (Without CONFIG_IRQ_TIME_ACCOUNTING:
with it, the kernel takes such work off the process.)
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench import servers
from tests.bench.loadgen import Generator, Traffic
from tests.bench.network import Place

FORWARDING, ALONE = "plain forwarding", "generator alone"
SUBJECTS = (servers.KERNEL, FORWARDING, servers.USERSPACE, servers.COTURN)
MOST_LOST_PERCENT = 1
TRIES = 3
NOTHING = float("nan")


class Subject(NamedTuple):
    """Something that packets go through, and the generator set up for it."""

    name: str
    generator: Generator
    alone: Generator

    @property
    def is_relay(self) -> bool:
        """Whether there is a relay at all."""
        return self.name != FORWARDING

    def cost(self, allocations: int, size: int, seconds: float, *, indications: bool) -> float:
        """Nanoseconds of CPU time that a packet costs; not a number where too many were lost."""

        def through(generator: Generator) -> Traffic | None:
            wrapped = indications and generator is not self.alone and self.is_relay
            return steady(
                lambda: generator.traffic(allocations, size, seconds, indications=wrapped)
            )

        found = through(self.generator)
        if found is None:
            return NOTHING
        if self.name in {servers.USERSPACE, servers.COTURN}:
            return found.relay_nanoseconds
        alone = through(self.alone)
        if alone is None:
            return NOTHING
        own = found.own_nanoseconds - alone.own_nanoseconds
        return own + (found.relay_nanoseconds if self.is_relay else 0)


def steady(run: Callable[[], Traffic]) -> Traffic | None:
    """A run in which next to nothing was lost; None: something else had the processors."""
    lost: list[float] = []
    while len(lost) < TRIES:
        found = run()
        if found.loss_percent <= MOST_LOST_PERCENT:
            return found
        lost.append(found.loss_percent)
    percents = ", ".join(f"{one:.1f} %" for one in lost)
    print(f"of the packets {percents} were lost: no figure from this turn", file=sys.stderr)
    return None


@contextmanager
def subject(name: str, program: Path, folder: Path, place: Place, ours: Path) -> Iterator[Subject]:
    """Have one ready to be measured. :param ours: where the packages of Icebroker are."""
    alone = Generator.without(program, place, place.alone)
    if name == FORWARDING:
        straight = Generator.without(program, place, (place.peer, place.peer_host))
        yield Subject(name, straight, alone)
        return
    with servers.running(name, folder, place, ours) as pid:
        who = (servers.USER, servers.PASSWORD)
        yield Subject(name, Generator.for_relay(program, place, pid, *who), alone)
