"""The relay without a right, and a small process that has them: who may die, and who may not."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.turn.kernel.hosts import Network
from tests.turn.kernel.restarts import ROOT, Call, Process
from turn.codec.registry import Method
from turn.kernel.carrier import GONE, KernelPlane
from turn.kernel.pins import Pins

WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
RIGHTS = "-all,+bpf,+perfmon,+net_admin,+chown"


@pytest.fixture(name="loader")
def loader_fixture(three: Network, folder: Path) -> Iterator[Process]:
    loader = Process(three, folder, command="kernel")
    begin(loader)
    yield loader
    loader.stop()


@pytest.fixture(name="relay")
def relay_fixture(three: Network, folder: Path, loader: Process) -> Iterator[Process]:
    process = Process(three, folder)
    process.start(*WITHOUT_RIGHTS)
    yield process
    process.stop()
    print(process.log)


@pytest.fixture(name="call")
def call_fixture(three: Network, relay: Process) -> Iterator[Call]:
    call = Call(three)
    call.begin()
    yield call
    call.close()


def begin(loader: Process) -> None:
    """Start the loader with the rights that it needs, and see it at work."""
    before = loader.log.count("attached") if loader.has_log else 0
    loader.start("setpriv", f"--bounding-set={RIGHTS}", "--inh-caps=-all")
    loader.wait(lambda: loader.log.count('"attached"') > before)


def carry_on(call: Call, seconds: float = 0.15) -> None:
    end = time.monotonic() + seconds
    call.go_on(lambda: time.monotonic() > end)


def told(process: Process, words: str, times: int) -> bool:
    return process.log.count(words) == times


def test_a_relay_without_rights_has_its_packets_carried(relay: Process, call: Call):
    assert '"plane": "kernel", "reason": "at lo, s0, s1, kept' in relay.log
    with relay.standing_still():
        carry_on(call)
        call.wait(lambda: not call.missing)


def test_either_may_die(relay: Process, loader: Process, call: Call):
    relay.end(signal.SIGKILL)
    carry_on(call)
    relay.start(*WITHOUT_RIGHTS)
    call.ask(Method.REFRESH, calling=True)
    loader.end(signal.SIGKILL)
    carry_on(call)
    begin(loader)
    carry_on(call)
    call.wait(lambda: not call.missing)


def test_the_relay_starts_though_the_loader_is_dead(relay: Process, loader: Process, call: Call):
    loader.end(signal.SIGKILL)
    relay.end(signal.SIGKILL)
    relay.start(*WITHOUT_RIGHTS)
    call.ask(Method.REFRESH, calling=True)
    call.wait(lambda: not call.missing)
    assert relay.log.count('"plane": "kernel"') == 2


def test_when_the_loader_stops_user_space_carries(relay: Process, loader: Process, call: Call):
    loader.end(signal.SIGTERM)
    call.step(1)
    call.wait(lambda: not call.missing)


def test_the_next_loader_has_the_packets_carried_again(relay: Process, loader: Process, call: Call):
    for again in (1, 2):
        loader.end(signal.SIGTERM)
        relay.wait(partial(told, relay, GONE, again))
        call.step(1)
        call.wait(lambda: not call.missing)
        begin(loader)
        relay.wait(partial(told, relay, '"routes": 1', again))
        carry_on(call)  # the first packet finds the way
        with relay.standing_still():
            carry_on(call)
            call.wait(lambda: not call.missing)


def test_a_loader_that_comes_later_is_used_without_a_restart(three: Network, folder: Path):
    relay, loader = Process(three, folder, plane="auto"), Process(three, folder, command="kernel")
    relay.start(*WITHOUT_RIGHTS)
    call = Call(three)
    try:
        call.begin()
        assert '"plane": "userspace"' in relay.log
        begin(loader)
        relay.wait(partial(told, relay, '"routes": 1', 1))
        carry_on(call)
        with relay.standing_still():
            carry_on(call)
            call.wait(lambda: not call.missing)
    finally:
        call.close()
        relay.stop()
        loader.stop()


def test_who_is_lent_the_maps_need_not_see_the_links(folder: Path, loader: Process):
    """They are root's; the maps are the borrower's."""
    (links,) = (folder / "bpf" / "relay").glob("links-*")
    os.chown(links, 65534, 65534)
    program = "import sys, pathlib; from turn.kernel import loader as l\n"
    program += "l.borrow(pathlib.Path(sys.argv[1])).close()"
    try:
        done = subprocess.run(
            [
                "nsenter", f"--net=/proc/{loader.pid}/ns/net", *WITHOUT_RIGHTS,
                sys.executable, "-c", program, str(folder / "bpf" / "relay"),
            ],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        os.chown(links, 0, 0)
    assert done.returncode == 0, done.stderr


def test_what_was_taken_away_is_not_said_to_carry(three: Network, folder: Path, loader: Process):
    with three.server.inside():
        plane = KernelPlane(folder / "bpf" / "relay", keep=True)
        try:
            assert plane.name == "kernel"
            loader.end(signal.SIGUSR1)
            begin(loader)
            assert plane.name == "kernel"
            loader.end(signal.SIGTERM)
            assert (plane.name, plane.reason) == ("userspace", GONE)
            begin(loader)  # with maps of its own
            assert (plane.name, plane.reason) == ("userspace", GONE)
        finally:
            plane.stop()


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL])
def test_what_is_lent_to_another_user_can_be_gone_on_with(
    three: Network, folder: Path, loader: Process, how: signal.Signals
):
    # Root with the rights of the unit only: it may not read what is not its own or its group's.
    borrower = Process(three, folder, command="kernel")
    borrower.start(options=("--once", "--lend-to", "65534"))
    assert borrower._process.wait(PATIENCE) == 0, borrower.log
    loader.end(how)
    begin(loader)
    loader.end(signal.SIGTERM)
    left = [path.name for path in (folder / "bpf").rglob("*") if "-" in path.name]
    assert not left


def test_a_second_loader_ends_and_says_why(three: Network, folder: Path, loader: Process):
    second = Process(three, folder, command="kernel")
    second.start()
    assert second._process.wait(10) == 1
    assert "another process keeps the program" in second.log


def test_a_second_relay_cannot_write_into_the_maps_of_the_first(
    three: Network, folder: Path, relay: Process, call: Call, tmp_path: Path
):
    other = Process(three, folder, plane="auto")
    text = other.file.read_text().replace(":3478", ":3500").replace("/state", "/other")
    other.file = folder / "other.toml"
    other.file.write_text(text)
    other.start(*WITHOUT_RIGHTS)
    other.wait(lambda: '"plane": "userspace"' in other.log)
    carry_on(call)
    call.wait(lambda: not call.missing)
    other.stop()


def test_what_nobody_has_loaded_cannot_be_lent(three: Network, folder: Path):
    process = Process(three, folder, command="kernel")
    process.start(options=("--once", "--lend-to", "0"))
    assert process._process.wait(10) == 1
    assert "no kernel program is loaded" in process.log
    assert "relays go on in user space" in process.log


def test_no_rights_no_loader(three: Network, folder: Path):
    process = Process(three, folder, command="kernel")
    process.start(*WITHOUT_RIGHTS)
    assert process._process.wait(10) == 1
    assert "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in process.log
    assert "Traceback" not in process.log


def test_after_the_loaders_end_nothing_is_left(three: Network, folder: Path, loader: Process):
    loader.end(signal.SIGTERM)
    assert not (folder / "bpf" / "relay").exists()
    shown = three.server.run("tc", "filter", "show", "dev", "s0", "ingress")
    assert shown == ""


def test_what_the_kernel_itself_puts_at_the_top_of_a_bpffs_is_left_alone(folder: Path):
    # With bpf_preload, each bpffs has maps.debug and progs.debug: files, which nobody may remove.
    top = folder / "bpf"
    of_the_kernel = sorted(top.iterdir())
    (top / "maps-0-1").mkdir()
    (top / "of-others").mkdir()
    pins = Pins(top)
    pins.make()
    names = {path.name for path in top.iterdir()}
    pins.clear()
    assert sorted(name.partition("-")[0] for name in names - {p.name for p in of_the_kernel}) == [
        "links", "maps", "of",
    ]  # fmt: skip
    assert "maps-0-1" not in names


def test_a_supervisor_is_told_once_a_relay_can_be_lent_the_program(
    three: Network, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(folder / "notify"))
        heard.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", heard.getsockname())
        loader = Process(three, folder, command="kernel")
        loader.start()
        try:
            assert heard.recv(4096).startswith(b"READY=1")
            borrower = Process(three, folder, command="kernel")
            borrower.start(options=("--once", "--lend-to", "0"))
            assert borrower._process.wait(PATIENCE) == 0, borrower.log
        finally:
            loader.stop()
