"""What every test may need: real programs, or a clear word that one is missing."""

import gc
import itertools
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from coverage import Coverage

from tests.interop.process import free_port
from tests.shell import Ports, Shell

SHOWN = "shown when all is over"
"""The property of a test (``record_property``) that is for whoever reads the run's output."""
IN_CI = os.environ.get("CI") == "true"
NO_KERNEL = "this kernel has no"
"""How the reason of a test begins that CI skips too: nothing that is installed would help."""
COUNTED = (
    "tests/signaling/test_",
    "tests/turn/allocation/",
    "tests/turn/auth/",
    "tests/turn/codec/",
    "tests/turn/test_",
)
"""Tests that have to reach the pure code by themselves; what others reach is not counted."""
PACKAGES = {
    "turnutils_uclient": "coturn",
    "turnserver": "coturn",
    "tshark": "tshark",
    "nginx": "nginx-light",
    "jq": "jq",
    "curl": "curl",
    "openssl": "openssl",
    "ss": "iproute2",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "clang": "clang",
    "gcc": "gcc",
    "nft": "nftables",
    "faketime": "faketime",
    "chromium": "chromium",
    "redis-server": "redis-server",
    "systemd-analyze": "systemd",
    "promtool": "prometheus",
    "docker-compose": "docker-compose",
    "go": "golang-go golang-github-masterminds-sprig-dev golang-k8s-sigs-yaml-dev",
    "prometheus": "prometheus",
    "node": "nodejs",
    "npm": "npm",
}


def need(program: str) -> str:
    """The path of a program. In CI a missing one is a failure, elsewhere the test is skipped."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found:
        return found
    message = f"{program} is missing; install it with: apt-get install {PACKAGES[program]}"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


def need_root(what: str) -> None:
    """See that the tests run as root; in CI they do."""
    if os.geteuid() != 0:
        if IN_CI:
            pytest.fail(f"{what} needs root")
        pytest.skip(f"{what} needs root")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs our command in a fresh folder."""
    return Shell(tmp_path)


@pytest.fixture
def ports() -> Ports:
    """Three free ports."""
    return Ports(free_port(), free_port(), free_port())


@pytest.fixture(name="need")
def need_fixture():
    """The function ``need``."""
    return need


@pytest.fixture(name="need_root")
def need_root_fixture():
    """The function ``need_root``."""
    return need_root


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have the garbage collector look at what tests leave behind, not at them all each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep coverage away from other tests: with it Python takes two to three times as long."""
    counting = Coverage.current()
    if counting is None or item.nodeid.startswith(COUNTED):
        return (yield)
    counting.stop()
    try:
        return (yield)
    finally:
        counting.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See that CI skips nothing, whatever a test does by itself."""
    report = yield
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    if reason and IN_CI and NO_KERNEL not in reason:
        report.outcome = "failed"
        report.longrepr = f"CI skips nothing: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have found, whichever process they ran in."""
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        for name, text in getattr(report, "user_properties", ()):
            if name == SHOWN and report.when == "call":
                terminalreporter.write_sep("-", report.nodeid.partition("[")[0])
                terminalreporter.write_line(text)
