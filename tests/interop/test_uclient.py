"""coturn's own test client against our relay, every packet also through Wireshark's dissector."""

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import need, need_root
from tests.interop import uclient
from tests.interop.uclient import (
    BY_THE_DIE,
    LINES,
    SECRET,
    THIRD_PARTY,
    Bench,
    all_came_back,
)
from tests.patience import PATIENCE

FILTERS = (
    (
        "_ws.malformed || stun.short_packet || stun.wrong_msglen || stun.long_attribute"
        " || stun.unknown_attribute || stun.att.crc32.bad"
    ),
    "udp.srcport==PORT && !stun",
)
LONGEST = {"udp-many", "udp-large"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One relay for all lines."""
    with uclient.bench(
        tmp_path_factory.mktemp("relay"),
        tcp_allocations=True,
        **THIRD_PARTY,
    ) as bench:
        yield bench


class Run(NamedTuple):
    """All lines at once (they mostly sleep), and what was captured meanwhile."""

    outputs: dict[str, str]
    packets: int
    complaints: str


@pytest.fixture(scope="module")
def run(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run every line under one capture."""
    capture = Capture(tmp_path_factory.mktemp("capture") / "lo.pcap", bench.server.port)
    # Those that take longest are not to be the last.
    steady = sorted(set(LINES) - set(BY_THE_DIE), key=lambda name: name not in LONGEST)
    with ThreadPoolExecutor(1) as pool:
        thrown = pool.submit(bench.by_the_die)
        outputs = bench.at_once(steady, 24) | thrown.result()
    capture.stop()
    return Run(outputs, capture.count(), capture.complaints())


class Capture:
    """Every packet from and to a port on loopback."""

    def __init__(self, file: Path, port: int) -> None:
        need("tshark")
        need_root("a packet capture")
        self._file = file
        self._port = port
        self._process = subprocess.Popen(
            ["tshark", "-q", "-i", "lo", "-f", f"port {port}", "-w", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "Capturing on" in line:
                break
        time.sleep(0.3)  # it says so a moment before it does

    def stop(self) -> None:
        """End the capture, once what was sent last has been written."""
        time.sleep(0.3)
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def complaints(self) -> str:
        """What the dissector finds wrong."""
        found = ""
        for text in FILTERS:
            display = text.replace("PORT", str(self._port))
            decode = ["-d", f"udp.port=={self._port},stun", "-d", f"tcp.port=={self._port},stun"]
            command = ["tshark", "-r", str(self._file), *decode, "-Y", display]
            found += subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return found

    def count(self) -> int:
        """The STUN and TURN packets that were captured."""
        decode = ["-d", f"udp.port=={self._port},stun", "-d", f"tcp.port=={self._port},stun"]
        command = ["tshark", "-r", str(self._file), *decode, "-Y", "stun"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return len(found.splitlines())


@pytest.mark.parametrize("name", LINES)
def test_every_message_comes_back(run: Run, name: str) -> None:
    assert all_came_back(run.outputs[name]), run.outputs[name]


def test_the_dissector_has_nothing_to_complain_about(run: Run) -> None:
    assert run.packets > 1000, "the capture saw nothing"
    assert run.complaints == ""


@pytest.mark.parametrize(
    "line",
    [
        "-u alice -w WRONG -e 127.0.0.1 127.0.0.1",
        "-W wrong -u bob -e 127.0.0.1 127.0.0.1",
        "-t -u alice -w WRONG -e 127.0.0.1 127.0.0.1",
    ],
)
def test_wrong_credentials_are_refused(bench: Bench, line: str) -> None:
    before = bench.server.metrics()["icebroker_turn_allocations_created_total" + UDP_IPV4]
    code, _ = bench.uclient(line)
    assert code == 255
    assert bench.server.metrics()["icebroker_turn_allocations_created_total" + UDP_IPV4] == before


@pytest.mark.parametrize("over", ["", "-t"], ids=["udp", "tcp"])
def test_a_ticket_that_others_may_have_seen_is_not_good_with_another_token(
    bench: Bench, over: str
) -> None:
    """The client makes itself a new token, with another key, for each Refresh: so may a thief."""
    code, output = bench.uclient(f"-M -J {over} -e 127.0.0.1 127.0.0.1")
    assert code == 255
    assert "error 441 (Wrong Credentials)" in output


UDP_IPV4 = '{family="ipv4",transport="udp"}'


def test_random_corruption_does_not_harm_the_server(bench: Bench) -> None:
    with ThreadPoolExecutor() as pool:  # each ends when it likes, or never
        for _ in range(2):
            pool.submit(bench.uclient, "-R -e 127.0.0.1 USER 127.0.0.1", seconds=4)
    output = bench.complete("-c -e 127.0.0.1 USER 127.0.0.1")
    assert "tot_send_msgs=5, tot_recv_msgs=5" in output


def test_a_binding_tells_the_address(bench: Bench) -> None:
    command = ["turnutils_stunclient", "-p", str(bench.server.port), "127.0.0.1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "UDP reflexive addr: 127.0.0.1" in result.stdout


def test_no_password_and_no_secret_is_in_the_log(bench: Bench) -> None:
    text = bench.server.log.read_text()
    for secret in ("secretpw", SECRET, "WRONG"):
        assert secret not in text
