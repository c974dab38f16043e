"""What the doctor finds, as metrics of a probe (the multi-target pattern of Prometheus)."""

import time
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from turn.doctor.report import Section, Status
from turn.metrics import exposition

PREFIX = "icebroker_probe_"


class _Probed(Collector):
    def __init__(self, section: Section, seconds: float) -> None:
        self._section = section
        self._seconds = seconds

    def collect(self) -> Iterator[Metric]:
        """Give the verdict, and each check that was made."""
        section = self._section
        yield GaugeMetricFamily(
            PREFIX + "success", "1 if nothing failed.", value=int(section.passed)
        )
        yield GaugeMetricFamily(
            PREFIX + "works", "1 if clients are served, safely or not.", value=int(section.works)
        )
        yield GaugeMetricFamily(
            PREFIX + "duration_seconds", "What the whole probe took.", value=self._seconds
        )
        results = GaugeMetricFamily(
            PREFIX + "check", "By check: 2 well, 1 with a reservation, 0 failed.", labels=["check"]
        )
        delays = GaugeMetricFamily(
            PREFIX + "check_duration_seconds", "What a check took.", labels=["check"]
        )
        worst: dict[str, int] = {}
        for finding in section.findings:
            if finding.status is not Status.SKIP:
                value = {Status.OK: 2, Status.WARN: 1, Status.FAIL: 0}[finding.status]
                worst[finding.check] = min(value, worst.get(finding.check, value))
            if finding.seconds is not None:
                delays.add_metric([finding.check], finding.seconds)
        for check, value in worst.items():
            results.add_metric([check], value)
        yield results
        yield delays


async def probe(
    examining: Awaitable[Section], clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Wait for what is found of a server; the page that Prometheus scrapes."""
    began = clock()
    section = await examining
    return exposition([_Probed(section, clock() - began)])
