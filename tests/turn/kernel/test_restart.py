"""A call goes on through a restart and a crash: the kernel carries, the next process takes over."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.patience import PATIENCE, wait_until
from tests.turn.kernel.hosts import Network
from tests.turn.kernel.restarts import Call, IndicationCall, Process
from turn.codec import registry
from turn.codec.registry import Method

TIMES = int(os.environ.get("ICEBROKER_TEST_RESTARTS", "2"))
"""How often in a row; more by hand."""


@pytest.fixture(name="process")
def process_fixture(three: Network, folder: Path) -> Iterator[Process]:
    process = Process(three, folder)
    process.start()
    yield process
    process.stop()
    print(process.log)


KINDS = {
    "IPv4": (Call, False),
    "IPv6": (Call, True),
    "indications": (IndicationCall, False),
}


@pytest.fixture(name="bound")
def bound_fixture(three: Network, process: Process) -> Iterator[Call]:
    call = Call(three)
    call.begin()
    yield call
    call.close()


def carry_on(call: Call, seconds: float) -> None:
    """Let the call go on for a while."""
    end = time.monotonic() + seconds
    call.go_on(lambda: time.monotonic() > end)


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_loses_not_a_packet(three: Network, process: Process, kind: str):
    make, ipv6 = KINDS[kind]
    call = make(three, ipv6=ipv6)
    call.begin()
    through(process, call, signal.SIGKILL)
    call.close()


def test_a_restart_loses_not_a_packet(process: Process, bound: Call):
    through(process, bound, signal.SIGUSR1)


def through(process: Process, call: Call, how: signal.Signals) -> None:
    """End the process and start it again, some times, while the call goes on."""
    for _ in range(TIMES):
        carry_on(call, 0.1)
        process.end(how)
        carry_on(call, 0.2)
        process.start()
        assert call.ask(Method.REFRESH, calling=True).get(registry.LIFETIME)
        call.admit(calling=True)
    assert call.sent > 1000
    call.wait(lambda: not call.missing)


def pinned(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "bpf" / "relay").rglob("*") if not path.is_dir())


def test_a_stop_leaves_nothing(process: Process, bound: Call, folder: Path):
    assert "ways4" in pinned(folder)
    process.end(signal.SIGTERM)
    assert pinned(folder) == []
    assert [path.name for path in (folder / "state").iterdir()] == ["lock"]
    bound.step(1)
    time.sleep(0.1)
    bound.read()
    assert bound.missing == 2  # as nothing is carried any more


def test_what_belongs_to_another_configuration_is_cleaned_up(process: Process, bound: Call):
    process.end(signal.SIGKILL)
    carry_on(bound, 0.1)
    bound.wait(lambda: not bound.missing)
    process.file.write_text(process.file.read_text().replace(":3478", ":3479"))
    process.start()
    bound.wait(lambda: '"lost": 1' in process.log)
    wait_until(lambda: is_cut_off(bound))  # a moment after it has said so


def is_cut_off(call: Call) -> bool:
    before = call.missing
    call.step(1)
    time.sleep(0.1)
    call.read()
    return call.missing == before + 2


def test_user_space_takes_over_from_the_kernel(process: Process, bound: Call, folder: Path):
    process.end(signal.SIGKILL)
    process.file.write_text(process.file.read_text().replace('"kernel"', '"userspace"'))
    process.start()
    bound.ask(Method.REFRESH)
    assert pinned(folder) == []
    bound.step(4)
    bound.wait(lambda: not bound.missing)
    with process.standing_still():
        bound.step(4)
        time.sleep(0.1)
        bound.read()
        assert bound.missing == 8  # not a packet goes by the kernel any more
    bound.wait(lambda: not bound.missing)


def test_a_limit_that_is_new_holds_for_calls_that_go_on(process: Process, bound: Call):
    process.end(signal.SIGKILL)
    limited = "[turn]\nmax_bytes_per_second = 640"  # ten packets of this call
    process.file.write_text(process.file.read_text().replace("[turn]", limited, 1))
    process.start()
    bound.ask(Method.REFRESH)
    with process.standing_still():
        start = time.monotonic()
        bound.step(100)
        bound.read()
        took = time.monotonic() - start
        assert 200 - bound.missing <= 2 * 10 * (1 + took + 0.1)
    process.end(signal.SIGTERM)


def test_a_second_relay_does_not_start(process: Process, bound: Call):
    process_log = process.log
    second = process._process
    process.start()
    assert process._process.wait(PATIENCE) == 1
    process._process = second
    assert "turn.state_directory: another relay has it" in process.log[len(process_log) :]
    carry_on(bound, 0.1)
    bound.wait(lambda: not bound.missing)
