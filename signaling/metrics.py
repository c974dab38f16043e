"""Prometheus metrics of signaling: read from the counters at scrape time."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from signaling.protocol.errors import CloseCode, ErrorCode
from signaling.stats import DECISIONS, DELIVERY_BUCKETS, PATHS, WEBHOOKS, Stats

PREFIX = "icebroker_"
MESSAGE_TYPES = (
    "join",
    "leave",
    "signal",
    "message",
    "bye",
    "ack",
    "ice",
    "ping",
    "stats",
    "peerjs",
)
DISCONNECTS = (
    *(code.name.lower() for code in CloseCode if code is not CloseCode.NORMAL),
    "left", "page_gone", "lost", "protocol_error", "write_failed",
)  # fmt: skip


class Gauges:
    """What is asked of its owner at scrape time."""

    def __init__(
        self,
        connections: Callable[[], int],
        rooms_and_peers: Callable[[], tuple[int, int]],
        broker_up: Callable[[], bool],
        credentials_issued: Callable[[], int],
        certificate_expiry: Callable[[], float | None],
    ) -> None:
        self.connections = connections
        self.rooms_and_peers = rooms_and_peers
        self.broker_up = broker_up
        self.credentials_issued = credentials_issued
        self.certificate_expiry = certificate_expiry


class SignalingCollector(Collector):
    """The metrics of one signaling process."""

    def __init__(self, stats: Stats, gauges: Gauges) -> None:
        self._stats = stats
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Give every metric, with every fixed label value from the start."""
        stats, gauges = self._stats, self._gauges
        rooms, peers = gauges.rooms_and_peers()
        yield _gauge("signaling_connections", "Open WebSockets.", gauges.connections())
        yield _gauge("signaling_rooms", "Rooms with somebody in them.", rooms)
        yield _gauge("signaling_peers", "Peers in rooms.", peers)
        yield _gauge("broker_up", "1 while the broker can be reached.", int(gauges.broker_up()))
        expiry = gauges.certificate_expiry()
        if expiry is not None:
            name = "signaling_tls_certificate_not_after_timestamp_seconds"
            yield _gauge(name, "When the TLS certificate of the pages expires.", expiry)
        yield _counter(
            "signaling_messages", "Messages received.", "type",
            _with_zeros(MESSAGE_TYPES, stats.messages),
        )  # fmt: skip
        yield _counter(
            "signaling_disconnects", "Sockets ended.", "reason",
            _with_zeros(DISCONNECTS, stats.disconnects),
        )  # fmt: skip
        yield _counter(
            "signaling_dropped_messages", "Messages answered by an error.", "reason",
            _with_zeros(ErrorCode, stats.dropped),
        )  # fmt: skip
        yield _counter(
            "client_ice_results", "Paths that clients' calls took.", "path",
            _with_zeros(PATHS, stats.ice_results),
        )  # fmt: skip
        yield _counter(
            "webhooks", "Tries to tell the back end of rooms and peers.", "result",
            _with_zeros(WEBHOOKS, stats.webhooks),
        )  # fmt: skip
        yield _counter(
            "join_decisions", "Decisions of the back end who may join.", "result",
            _with_zeros(DECISIONS, stats.join_decisions),
        )  # fmt: skip
        yield CounterMetricFamily(
            PREFIX + "credentials_issued", "Relay credentials handed out.",
            value=gauges.credentials_issued(),
        )  # fmt: skip
        yield self._delivery()

    def _delivery(self) -> Metric:
        histogram, running, buckets = self._stats.delivery, 0, []
        for bound, count in zip((*DELIVERY_BUCKETS, "+Inf"), histogram.counts, strict=True):
            running += count
            buckets.append((str(bound), running))
        return HistogramMetricFamily(
            PREFIX + "signaling_delivery_seconds",
            "From a message's arrival at its recipient's node to its hand-over to the socket.",
            buckets=buckets,
            sum_value=histogram.total,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _with_zeros(names: Iterable[str], values: Mapping[str, int]) -> dict[str, int]:
    return {str(name): values.get(name, 0) for name in names}
