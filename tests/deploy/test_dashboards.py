"""Every query of the Grafana dashboards gives data while the services do something."""

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deploy.watched import Prometheus, busy, prometheus, served

BOARDS = Path(__file__).parents[2] / "deploy/grafana"
NAMES = ["relay", "signaling"]
WATCHED_FOR = 4.0
"""Seconds of load before anything is asked: enough scrapes for every rate."""
QUIET = {"Draining", "Dropped packets, by reason", "Ended allocations, by reason",
         "Refused for a quota", "Answered by an error, by reason", "Ended connections, by reason"}  # fmt: skip
"""Panels that are zero while all goes well; every other one has something to show."""


class Query(NamedTuple):
    """One query of a panel."""

    panel: str
    expression: str


def board(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BOARDS / f"{name}.json").read_text())
    return found


def queries(name: str) -> list[Query]:
    return [
        Query(panel["title"], target["expr"])
        for panel in board(name)["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that sees both services under some load."""
    folder = tmp_path_factory.mktemp("watched")
    with served(folder) as ports, prometheus(folder, ports.admin) as found, busy(ports):
        time.sleep(WATCHED_FOR)
        yield found


@pytest.mark.parametrize("name", NAMES)
def test_every_query_has_an_answer(live: Prometheus, name: str):
    asked = queries(name)
    assert len(asked) >= 12
    for panel, expression in asked:
        text = expression.replace("$__rate_interval", "20s").replace("$instance", ".*")
        assert "$" not in text, f"{panel}: a variable that nobody fills in"
        samples = [float(sample["value"][1]) for sample in live.query(text)]
        assert samples, f"{panel}: nothing for {text}"
        assert not any(map(math.isnan, samples)), f"{panel}: not a number for {text}"
        if panel not in QUIET:
            assert any(samples), f"{panel}: nothing but zeros for {text}"


@pytest.mark.parametrize("name", NAMES)
def test_the_variables_of_a_dashboard_have_values(live: Prometheus, name: str):
    source, instance = board(name)["templating"]["list"]
    assert (source["name"], instance["name"]) == ("datasource", "instance")
    metric = re.fullmatch(r"label_values\((\w+), instance\)", instance["query"]["query"])
    assert metric
    assert live.query(metric[1])


def test_what_the_rules_record_is_there(live: Prometheus):
    for name in ("instance:icebroker_turn_relay_bytes:rate5m", "turn_total_traffic_sentb",
                 "instance:icebroker_signaling_delivery_seconds:p99",
                 "job:icebroker_client_ice_results:share1h"):  # fmt: skip
        assert any(float(sample["value"][1]) for sample in live.query(name)), name


def test_a_service_that_does_well_raises_no_alert(live: Prometheus):
    assert live.query('ALERTS{alertstate="firing"}') == []


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_whole(name: str):
    found = board(name)
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert found["uid"] == f"icebroker-{name}"
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places)
