"""coturn's own test client against our relay, every packet also through Wireshark's dissector."""

import base64
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import need, need_root
from tests.interop.process import Relay, free_port, relay, running
from tests.patience import PATIENCE

SECRET = "the shared secret of the tests"
USER = ["-u", "alice", "-w", "secretpw"]

LINES = {
    "udp": "-e 127.0.0.1 USER 127.0.0.1",
    "udp-send": "-s -e 127.0.0.1 USER 127.0.0.1",
    "udp-no-rtcp": "-c -e 127.0.0.1 USER 127.0.0.1",
    "udp-negative": "-G -e 127.0.0.1 USER 127.0.0.1",
    "udp-padding": "-D -e 127.0.0.1 USER 127.0.0.1",
    "udp-random-stun": "-B -e 127.0.0.1 USER 127.0.0.1",
    "udp-pair": "-y USER 127.0.0.1",
    "udp-pair-no-rtcp": "-y -c USER 127.0.0.1",
    "udp-pair-send": "-y -s USER 127.0.0.1",
    "udp-unfragmented": "-g -e 127.0.0.1 USER 127.0.0.1",
    "udp-unfragmented-x": "-X -g -e 127.0.0.1 USER 127.0.0.1",
    "udp-dual": "-Z -e 127.0.0.1 USER 127.0.0.1",
    "mobility": "-M -e 127.0.0.1 USER 127.0.0.1",
    "mobility-send": "-M -s -e 127.0.0.1 USER 127.0.0.1",
    "mobility-tcp": "-M -t -e 127.0.0.1 USER 127.0.0.1",
    "third-party": "-J -e 127.0.0.1 127.0.0.1",
    "third-party-tcp": "-J -t -e 127.0.0.1 127.0.0.1",
    "third-party-pair": "-J -y 127.0.0.1",
    "udp-large": "-l 1200 -n 200 -m 5 -z 5 -e 127.0.0.1 USER 127.0.0.1",
    "udp-many": "-m 50 -n 20 -y -e 127.0.0.1 USER 127.0.0.1",
    "tcp": "-t -e 127.0.0.1 USER 127.0.0.1",
    "tcp-send": "-t -s -e 127.0.0.1 USER 127.0.0.1",
    "tcp-padding": "-t -D -e 127.0.0.1 USER 127.0.0.1",
    "tcp-negative": "-t -G -e 127.0.0.1 USER 127.0.0.1",
    "tcp-pair": "-t -y USER 127.0.0.1",
    "tls": "-t -S -E CA -e 127.0.0.1 USER 127.0.0.1",
    "tls-pair": "-t -S -y USER 127.0.0.1",
    "dtls": "-S -e 127.0.0.1 USER 127.0.0.1",
    "dtls-send": "-S -s -e 127.0.0.1 USER 127.0.0.1",
    "dtls-pair": "-S -y USER 127.0.0.1",
    "ipv6": "-x -e ::1 USER ::1",
    "ipv6-pair": "-x -y USER ::1",
    "ipv6-relay": "-x -e ::1 USER 127.0.0.1",
    "ipv6-client": "-X -e 127.0.0.1 USER ::1",
    "ipv6-tcp": "-t -x -e ::1 USER ::1",
    "rfc6062": "-T USER 127.0.0.1",
    "rfc6062-tls": "-T -S USER 127.0.0.1",
    "rfc6062-ipv6": "-T -x USER ::1",
    "secret-udp": "-W SECRET -u bob -e 127.0.0.1 127.0.0.1",
    "secret-tcp": "-t -W SECRET -u bob -e 127.0.0.1 127.0.0.1",
    "secret-tls": "-t -S -W SECRET -u bob -e 127.0.0.1 127.0.0.1",
}
# The keys that the client has in it for its -J.
TEST_KEYS = {
    name: base64.b64encode(key).decode()
    for name, key in {
        "north": b"01234567890123456789012345678901",
        "union": b"1234567890123456",
        "oldempire": b"12345678901234567890123456789012",
    }.items()
}
FILTERS = (
    (
        "_ws.malformed || stun.short_packet || stun.wrong_msglen || stun.long_attribute"
        " || stun.unknown_attribute || stun.att.crc32.bad"
    ),
    "udp.srcport==PORT && !stun",
)


class Bench:
    """A relay, an echo peer, and the client's command lines."""

    def __init__(self, server: Relay, peer_port: int) -> None:
        self.server = server
        self.peer_port = peer_port

    def uclient(self, line: str, seconds: float = 90) -> tuple[int | None, str]:
        """Run one line; gives its exit code (None: it was stopped after a while) and output."""
        words: list[str] = []
        for word in line.split():
            words += {
                "USER": USER,
                "SECRET": [SECRET],
                "CA": [str(self.server.certificate)],
            }.get(word, [word])
        port = self.server.tls_port if "-S" in words else self.server.port
        command = [need("turnutils_uclient"), "-p", str(port), "-r", str(self.peer_port), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One relay for all lines."""
    need("turnutils_uclient")
    peer_port = free_port()
    with (
        running("turnutils_peer", "-p", str(peer_port), "-L", "127.0.0.1", "-L", "::1"),
        relay(
            tmp_path_factory.mktemp("relay"),
            max_unproved_replies_per_second=1000,
            max_allocations_per_address=0,
            tcp_allocations=True,
            mobility=True,
            third_party_name="turn.example.org",
            third_party_keys=TEST_KEYS,
        ) as server,
    ):
        yield Bench(server, peer_port)


def all_came_back(output: str) -> bool:
    """Whether the client's last total says that as much was received as sent."""
    totals = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)$", output, re.MULTILINE)
    sent, received = map(int, totals[-1]) if totals else (0, 0)
    return sent == received > 0


class Run(NamedTuple):
    """All lines at once (they mostly sleep), and what was captured meanwhile."""

    outputs: dict[str, str]
    packets: int
    complaints: str


@pytest.fixture(scope="module")
def run(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run every line under one capture."""
    capture = Capture(tmp_path_factory.mktemp("capture") / "lo.pcap", bench.server.port)
    with ThreadPoolExecutor(9) as pool:
        results = pool.map(lambda name: bench.uclient(LINES[name])[1], LINES)
        outputs = dict(zip(LINES, results, strict=True))
    # The client stops listening on time, not on the last message: on a machine that is busy with
    # all lines at once one may come late. Alone, everything has to come.
    for name in [name for name, output in outputs.items() if not all_came_back(output)]:
        outputs[name] = bench.uclient(LINES[name])[1]
    # With -Z the client throws a die for the family of each Refresh, and gives up where it asked
    # for the family that its allocation does not have (coturn's own relay is refused as well).
    for _ in range(12):
        if "error 443" in outputs["udp-dual"]:
            outputs["udp-dual"] = bench.uclient(LINES["udp-dual"])[1]
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


UDP_IPV4 = '{family="ipv4",transport="udp"}'


def test_random_corruption_does_not_harm_the_server(bench: Bench) -> None:
    bench.uclient("-R -e 127.0.0.1 USER 127.0.0.1", seconds=8)  # it ends when it likes, or never
    _, output = bench.uclient("-c -e 127.0.0.1 USER 127.0.0.1")
    assert "tot_send_msgs=5, tot_recv_msgs=5" in output


def test_a_binding_tells_the_address(bench: Bench) -> None:
    command = ["turnutils_stunclient", "-p", str(bench.server.port), "127.0.0.1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "UDP reflexive addr: 127.0.0.1" in result.stdout


def test_no_password_and_no_secret_is_in_the_log(bench: Bench) -> None:
    text = bench.server.log.read_text()
    for secret in ("secretpw", SECRET, "WRONG"):
        assert secret not in text
