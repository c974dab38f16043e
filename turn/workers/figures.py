"""One metrics page for all workers: what they report is added up, and never goes back."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from turn.metrics import (
    Collector,
    External,
    Gauges,
    Metric,
    TurnCollector,
    WorkerRow,
    worker_metrics,
)
from turn.routes import NOTHING, Carried, RouteTable
from turn.stats import Stats, TenantBytes
from turn.tenants import TenantFigures, figures_of_tenants
from turn.workers.messages import Counts, Snapshot


def counts_of(
    stats: Stats, carried: Carried = NOTHING, of_tenants: TenantBytes | None = None
) -> Counts:
    """All counters as they travel.

    :param carried: what has passed in user space, if live routes are to be counted with them.
    :param of_tenants: the same by tenant.
    """
    counts: Counts = {}
    for name in Stats.__slots__:
        value = getattr(stats, name)
        if isinstance(value, int):
            counts[name] = value
        else:
            counts[name] = [(list(_labels(key)), count) for key, count in value.items()]
    if carried is not NOTHING:
        counts |= {name: value for name, value in carried._asdict().items() if name in counts}
    if of_tenants is not None:
        counts["tenant_bytes"] = [(list(key), count) for key, count in of_tenants.items()]
    return counts


def add_counts(stats: Stats, counts: Counts) -> None:
    """Add what a worker has counted. What this version does not count is left out."""
    for name, value in counts.items():
        if name not in Stats.__slots__:
            continue
        if isinstance(value, int):
            setattr(stats, name, getattr(stats, name) + value)
        else:
            total: Counter[object] = getattr(stats, name)
            for labels, count in value:
                total[tuple(labels) if len(labels) > 1 else labels[0]] += count


def _labels(key: object) -> tuple[str | int, ...]:
    return key if isinstance(key, tuple) else (str(key),)


class Tally:
    """What one place among the workers has counted, by all who ever held it."""

    def __init__(self) -> None:
        self._ended = Stats()
        self._ended_cpu = 0.0
        self.last: Snapshot | None = None
        """The last report of who holds it now."""
        self.restarts = 0

    def end(self) -> None:
        """Its worker is dead; what it reported last stays counted."""
        if self.last is not None:
            add_counts(self._ended, self.last.counts)
            self._ended_cpu += self.last.cpu_seconds
        self.last = None
        self.restarts += 1

    @property
    def cpu_seconds(self) -> float:
        """Of all who ever held it."""
        return self._ended_cpu + (self.last.cpu_seconds if self.last else 0.0)

    def add_to(self, stats: Stats) -> None:
        """Add everything that was counted here."""
        add_counts(stats, counts_of(self._ended))
        if self.last is not None:
            add_counts(stats, self.last.counts)


class Ports(NamedTuple):
    """Of each relay address; left where the fewest are left."""

    size: int
    free: int


class PoolCollector(Collector):
    """The metrics of all workers together, and some of each."""

    def __init__(
        self,
        tallies: Iterable[Tally],
        ports: Callable[[], Ports],
        serving: Callable[[int], bool],
        tenants: Callable[[], Iterable[str]],
        external: Callable[[], External | None],
        own: Stats,
    ) -> None:
        """Tell of what the workers count.

        :param tenants: their names, as they are now.
        :param own: what this process counts by itself.
        """
        self._own = own
        self._tallies = list(tallies)
        self._ports = ports
        self._serving = serving
        self._tenants = tenants
        self._external = external

    @property
    def reports(self) -> list[Snapshot]:
        """The last ones of all who serve."""
        return [tally.last for tally in self._tallies if tally.last is not None]

    @property
    def allocations(self) -> int:
        """That live at all workers, as of their last reports."""
        return sum(report.allocations for report in self.reports)

    def stats(self) -> Stats:
        """What all have counted since the start."""
        total = Stats()
        add_counts(total, counts_of(self._own))
        for tally in self._tallies:
            tally.add_to(total)
        return total

    def certificate_expiry(self) -> float | None:
        """The earliest end of a certificate in use; None without TLS."""
        found = [r.certificate_expiry for r in self.reports if r.certificate_expiry is not None]
        return min(found, default=None)

    def _of_tenants(self, stats: Stats) -> dict[str, TenantFigures]:
        live: Counter[str] = Counter()
        for report in self.reports:
            live.update(report.tenants)
        return figures_of_tenants(self._tenants(), live, stats.tenant_bytes)

    def collect(self) -> Iterator[Metric]:
        """Give every metric of a relay, and those that only several workers have."""
        stats, reports = self.stats(), self.reports
        gauges = Gauges(
            lambda: self.allocations,
            lambda: sum(report.ports_in_use for report in reports),
            self._ports,
            self.certificate_expiry,
            Carried,
            tenants=lambda: self._of_tenants(stats),
            external=self._external,
        )
        yield from TurnCollector(stats, RouteTable(stats), gauges).collect()
        yield from worker_metrics(
            WorkerRow(
                up=self._serving(number),
                restarts=tally.restarts,
                allocations=tally.last.allocations if tally.last else 0,
                cpu_seconds=tally.cpu_seconds,
                open_fds=tally.last.open_fds if tally.last else 0,
                max_fds=tally.last.max_fds if tally.last else 0,
            )
            for number, tally in enumerate(self._tallies)
        )
