"""Recording and alerting rules: as Prometheus reads them, with series that make each alert fire."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import need

RULES = Path(__file__).parents[2] / "deploy/prometheus"
CASES = Path(__file__).with_name("rules")
NAMES = ["alerts", "coturn", "recording"]


def promtool(*arguments: str | Path) -> None:
    command = [need("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_and_the_configuration_are_ones_that_prometheus_takes():
    promtool("check", "rules", *(RULES / f"{name}.yml" for name in NAMES))
    promtool("check", "config", RULES / "prometheus.yml")


@pytest.mark.parametrize("name", ["alerts", "recording"])
def test_the_rules_say_what_they_should(name: str):
    promtool("test", "rules", CASES / f"{name}.yml")


def test_every_alert_is_made_to_fire_once_and_says_what_to_do():
    tried = (CASES / "alerts.yml").read_text()
    (group,) = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert re.search(rf'\b{rule["alert"]}\b', tried), f"{rule['alert']} is never tried"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_names_are_those_of_coturn():
    (group,) = yaml.safe_load((RULES / "coturn.yml").read_text())["groups"]
    traffic = {
        f"turn_{total}traffic_{peer}{way}{what}"
        for total in ("", "total_")
        for peer in ("", "peer_")
        for way in ("rcv", "sent")
        for what in "pb"
    }
    binding = {f"stun_binding_{what}" for what in ("request", "response", "error")}
    assert {rule["record"] for rule in group["rules"]} == traffic | binding | {
        "turn_total_allocations"
    }
