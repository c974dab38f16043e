"""Prometheus metrics: read from the counters at scrape time, by the one importer of the client."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client import ProcessCollector as OfTheKernel
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from turn.routes import Carried, RouteTable
from turn.stats import DropReason, Stats
from turn.tenants import TenantFigures

__all__ = [
    "CONTENT_TYPE", "Collector", "External", "Gauges", "Metric", "ProcessCollector",
    "TurnCollector", "WorkerRow", "exposition", "worker_metrics",
]  # fmt: skip

PREFIX = "icebroker_"
CONTENT_TYPE = CONTENT_TYPE_LATEST
TRANSPORTS = ("udp", "tcp", "tls", "dtls")
FAMILIES = ("ipv4", "ipv6")
CLOSE_REASONS = ("released", "expired", "disconnected", "shutdown", "operator", "revoked", "moved")
QUOTAS = ("user", "tenant", "address", "total", "ports", "permissions", "channels", "connections")
USER_DECISIONS = ("allowed", "refused", "failed")
WEBHOOKS = ("delivered", "failed", "given_up")
AUTH_RESULTS = ("ok", "unauthorized", "stale_nonce", "bad_request")


class External(NamedTuple):
    """What STUN servers say of the relay's addresses."""

    confirmed: float
    """Unix time of the answer that is the oldest of all addresses' last ones; 0: one has none."""
    port_mapped: int
    """Addresses behind a NAT that maps ports too."""


class Gauges:
    """What is asked of its owner at scrape time."""

    def __init__(
        self,
        allocations: Callable[[], int],
        ports_in_use: Callable[[], int],
        ports: Callable[[], tuple[int, int]],
        certificate_expiry: Callable[[], float | None],
        carried: Callable[[], Carried],
        dropped: Callable[[], Mapping[DropReason, int]] = dict,
        tenants: Callable[[], Mapping[str, TenantFigures]] = dict,
        external: Callable[[], External | None] = lambda: None,
    ) -> None:
        self.allocations = allocations
        self.ports_in_use = ports_in_use
        self.ports = ports
        """Ports of each relay address, and how many are free at the one that has fewest."""
        self.certificate_expiry = certificate_expiry
        """Unix time, or None without TLS."""
        self.carried = carried
        """What the kernel plane relayed."""
        self.dropped = dropped
        """What it dropped."""
        self.tenants = tenants
        """What those have that there are: no other name becomes a label."""
        self.external = external
        """None where no STUN server is asked."""


class TurnCollector(Collector):
    """The relay's metrics."""

    def __init__(self, stats: Stats, routes: RouteTable, gauges: Gauges) -> None:
        self._stats = stats
        self._routes = routes
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Give every metric, with every fixed label value from the start."""
        stats, gauges = self._stats, self._gauges
        yield _gauge("turn_allocations", "Live allocations.", gauges.allocations())
        yield _gauge("turn_relay_ports_in_use", "Open relay ports.", gauges.ports_in_use())
        ports, free = gauges.ports()
        yield _gauge("turn_relay_ports", "Ports that each relay address has.", ports)
        yield _gauge("turn_relay_ports_free", "Ports left where the fewest are left.", free)
        expiry = gauges.certificate_expiry()
        if expiry is not None:
            name = "tls_certificate_not_after_timestamp_seconds"
            yield _gauge(name, "When the TLS certificate of the relay expires.", expiry)
        external = gauges.external()
        if external is not None:
            yield from _external(external)
        yield _counter(
            "turn_allocations_created", "Allocations made.", ("transport", "family"),
            dict.fromkeys(product(TRANSPORTS, FAMILIES), 0) | stats.allocations_created,
        )  # fmt: skip
        yield _counter(
            "turn_allocations_closed", "Allocations ended.", ("reason",),
            _with_zeros(CLOSE_REASONS, stats.allocations_closed),
        )  # fmt: skip
        drops = _with_zeros(DropReason, stats.drops)
        for reason, count in gauges.dropped().items():
            drops[reason] += count
        yield _counter("turn_dropped_packets", "Packets that ended here.", ("reason",), drops)
        yield _counter(
            "turn_quota_rejections", "Requests refused for a quota.", ("quota",),
            _with_zeros(QUOTAS, stats.quota_rejections),
        )  # fmt: skip
        yield _counter(
            "turn_auth", "Authentications by outcome.", ("result",),
            _with_zeros(AUTH_RESULTS, stats.auth),
        )  # fmt: skip
        yield _counter(
            "turn_user_decisions", "Decisions of the back end who is a user.", ("result",),
            _with_zeros(USER_DECISIONS, stats.user_decisions),
        )  # fmt: skip
        yield _counter(
            "turn_webhooks", "Tries to tell the back end of allocations.", ("result",),
            _with_zeros(WEBHOOKS, stats.webhooks),
        )  # fmt: skip
        yield _counter(
            "stun_requests", "Requests received.", ("method", "transport"), stats.requests
        )
        yield _counter(
            "stun_responses", "Replies made; code 200 is a success.", ("method", "code"),
            stats.responses,
        )  # fmt: skip
        yield from self._relayed()
        yield from _of_tenants(gauges.tenants())

    def _relayed(self) -> Iterator[Metric]:
        packets, octets = {}, {}
        planes = {"userspace": self._routes.in_user_space(), "kernel": self._gauges.carried()}
        for plane, carried in planes.items():
            packets["to_peer", plane] = carried.sent_packets
            packets["to_client", plane] = carried.received_packets
            octets["to_peer", plane] = carried.sent_bytes
            octets["to_client", plane] = carried.received_bytes
        labels = ("direction", "plane")
        yield _counter("turn_relay_packets", "Packets relayed.", labels, packets)
        yield _counter("turn_relay_bytes", "Bytes of payload relayed.", labels, octets)


def _of_tenants(tenants: Mapping[str, TenantFigures]) -> Iterator[Metric]:
    live = GaugeMetricFamily(
        PREFIX + "turn_tenant_allocations", "Live allocations of a tenant's users.",
        labels=("tenant",),
    )  # fmt: skip
    octets = {}
    for name, figures in sorted(tenants.items()):
        live.add_metric([name], figures.allocations)
        octets[name, "to_peer"] = figures.sent_bytes
        octets[name, "to_client"] = figures.received_bytes
    yield live
    text = "Bytes of payload relayed for a tenant's users."
    yield _counter("turn_tenant_relay_bytes", text, ("tenant", "direction"), octets)


def _external(external: External) -> Iterator[Metric]:
    text = "When STUN servers last told the external address; of several the longest ago, 0: never."
    yield _gauge("turn_external_address_confirmed_timestamp_seconds", text, external.confirmed)
    text = "External addresses behind a NAT that maps ports too: peers do not reach relayed ports."
    yield _gauge("turn_external_addresses_port_mapped", text, external.port_mapped)


class WorkerRow(NamedTuple):
    """How one of several worker processes goes."""

    up: bool
    restarts: int
    allocations: int
    cpu_seconds: float
    open_fds: int
    max_fds: int


def worker_metrics(rows: Iterable[WorkerRow]) -> Iterator[Metric]:
    """The metrics of each worker, by its number."""
    listed = list(rows)
    label = ("worker",)
    up = GaugeMetricFamily(PREFIX + "turn_worker_up", "1 while a worker serves.", labels=label)
    live = GaugeMetricFamily(
        PREFIX + "turn_worker_allocations", "Live allocations of a worker.", labels=label
    )
    cpu = CounterMetricFamily(
        PREFIX + "turn_worker_cpu_seconds", "CPU time of a worker's processes.", labels=label
    )
    files = GaugeMetricFamily(
        PREFIX + "turn_worker_open_fds", "Open file descriptors of a worker.", labels=label
    )
    most = GaugeMetricFamily(
        PREFIX + "turn_worker_max_fds", "As many as a worker may have open.", labels=label
    )
    for number, row in enumerate(listed):
        files.add_metric([str(number)], row.open_fds)
        most.add_metric([str(number)], row.max_fds)
        up.add_metric([str(number)], int(row.up))
        live.add_metric([str(number)], row.allocations)
        cpu.add_metric([str(number)], row.cpu_seconds)
    yield from (up, live, cpu, files, most)
    restarts = {number: row.restarts for number, row in enumerate(listed)}
    yield _counter("turn_worker_restarts", "Workers that died and were replaced.", label, restarts)


class ProcessCollector(Collector):
    """What is true of the process, whichever services it runs."""

    def __init__(
        self, version: str, draining: Callable[[], bool], reloaded: Callable[[], bool]
    ) -> None:
        self._version = version
        self._draining = draining
        self._reloaded = reloaded
        self._kernel = OfTheKernel(registry=None)

    def collect(self) -> Iterator[Metric]:
        """Give these, and CPU, memory and descriptors as ``process_…``."""
        info = GaugeMetricFamily(PREFIX + "build_info", "Version that runs.", labels=("version",))
        info.add_metric((self._version,), 1)
        yield info
        yield _gauge("draining", "1 while new work is turned away.", int(self._draining()))
        text = (
            "0 while the configuration that was to be loaded last is refused: an older one is used."
        )
        yield _gauge("config_reloaded", text, int(self._reloaded()))
        yield from self._kernel.collect()


def exposition(collectors: Iterable[Collector]) -> bytes:
    """The page that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for key, value in sorted(values.items(), key=str):
        family.add_metric(
            [str(part) for part in (key if isinstance(key, tuple) else (key,))], value
        )
    return family


def _with_zeros(names: Iterable[str], values: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): values.get(name, 0) for name in names}
