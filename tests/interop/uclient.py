"""coturn's own test client: its command lines, and a relay with a peer to run them against."""

import base64
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import need
from tests.interop.process import Relay, free_port, relay, running

TRIES = 3
"""The client stops listening on time, not on the last message, which on a busy machine may come
late: one of so many runs has to get everything."""
FEW = 5
"""Runs at once that are little for any machine."""
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
    "mobility-pair": "-M -y USER 127.0.0.1",
    "mobility-ipv6": "-M -x -e ::1 USER ::1",
    "mobility-tls": "-M -t -S -c -e 127.0.0.1 USER 127.0.0.1",
    "mobility-dtls": "-M -S -c -e 127.0.0.1 USER 127.0.0.1",
    "mobility-third-party-tls": "-M -J -t -S -c -e 127.0.0.1 127.0.0.1",
    "mobility-third-party-dtls": "-M -J -S -c -e 127.0.0.1 127.0.0.1",
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
    "rfc6062-many": "-T -m 8 USER 127.0.0.1",
    "rfc6062-mobility": "-M -T USER 127.0.0.1",
    "rfc6062-third-party": "-T -J 127.0.0.1",
    "rfc6062-third-party-tls": "-T -J -S 127.0.0.1",
    "rfc6062-tls": "-T -S USER 127.0.0.1",
    "rfc6062-ipv6": "-T -x USER ::1",
    "secret-udp": "-W SECRET -u bob -e 127.0.0.1 127.0.0.1",
    "secret-tcp": "-t -W SECRET -u bob -e 127.0.0.1 127.0.0.1",
    "secret-tls": "-t -S -W SECRET -u bob -e 127.0.0.1 127.0.0.1",
}

BY_THE_DIE = (
    "udp-dual",
    *(name for name in LINES if name.startswith("mobility-") and "-S" in LINES[name]),
)
"""Lines in which the client throws a die, and gives up by itself where it falls badly. With -Z that
is the family of each Refresh: it may ask for one that its allocation does not have (coturn's own
relay refuses that as well). With -M over TLS it is how it leaves its old connection: one way in
four frees it twice, and ends the new one with it."""
DICE = 20

THIRD_PARTY = {
    "third_party_name": "turn.example.org",
    "third_party_keys": {
        name: base64.b64encode(key).decode()
        for name, key in {
            "north": b"01234567890123456789012345678901",
            "union": b"1234567890123456",
            "oldempire": b"12345678901234567890123456789012",
        }.items()
    },
}
"""Settings for -J: the keys that the client has in it."""


def all_came_back(output: str) -> bool:
    """Whether the client's last total says that as much was received as sent."""
    totals = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)$", output, re.MULTILINE)
    sent, received = map(int, totals[-1]) if totals else (0, 0)
    return sent == received > 0


def run(arguments: Sequence[str], seconds: float = 90) -> tuple[int | None, str]:
    """Run the client; gives its exit code (None: it was stopped after a while) and output."""
    command = [need("turnutils_uclient"), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def complete(*arguments: str) -> str:
    """Run the client until everything came back; its output, or what the last try said."""
    output = ""
    for _ in range(TRIES):
        output = run(arguments)[1]
        if all_came_back(output):
            break
    return output


def complete_each(lines: Sequence[Sequence[str]]) -> list[str]:
    """The same of several runs at once, which mostly sleep."""
    with ThreadPoolExecutor(len(lines)) as pool:
        return list(pool.map(lambda line: complete(*line), lines))


class Bench:
    """A relay, an echo peer, and the client's command lines."""

    def __init__(self, server: Relay, peer_port: int) -> None:
        self.server = server
        self.peer_port = peer_port

    def uclient(self, line: str, seconds: float = 90) -> tuple[int | None, str]:
        """Run one line, once."""
        return run(self._arguments(line), seconds)

    def at_once(self, names: Iterable[str], threads: int) -> dict[str, str]:
        """What each of these lines says when all are run at once: they mostly sleep."""
        outputs = dict.fromkeys(names, "")
        # All at once are much for a small machine, a few are not. Alone, everything has to come.
        for number in (threads, FEW):
            left = [name for name, output in outputs.items() if not all_came_back(output)]
            with ThreadPoolExecutor(number) as pool:
                results = pool.map(lambda name: self.uclient(LINES[name])[1], left)
                outputs.update(zip(left, results, strict=True))
        for name in [name for name, output in outputs.items() if not all_came_back(output)]:
            outputs[name] = self.complete(LINES[name])
        return outputs

    def by_the_die(self) -> dict[str, str]:
        """What the lines say that may fail by their die: at the throw that came out well."""
        with ThreadPoolExecutor(len(BY_THE_DIE)) as pool:
            return dict(zip(BY_THE_DIE, pool.map(self._throw, BY_THE_DIE), strict=True))

    def _throw(self, name: str) -> str:
        output = ""
        for _ in range(DICE):
            output = self.uclient(LINES[name])[1]
            if all_came_back(output):
                break
        return output

    def complete(self, line: str) -> str:
        """What one line says when everything came back, or at the last try."""
        return complete(*self._arguments(line))

    def _arguments(self, line: str) -> list[str]:
        words: list[str] = []
        for word in line.split():
            words += {
                "USER": USER,
                "SECRET": [SECRET],
                "CA": [str(self.server.certificate)],
            }.get(word, [word])
        port = self.server.tls_port if "-S" in words else self.server.port
        return ["-p", str(port), "-r", str(self.peer_port), *words]


@contextmanager
def echo_peer(*hosts: str) -> Iterator[int]:
    """coturn's echo peer; its port."""
    port = free_port()
    listening = [word for host in hosts or ("127.0.0.1",) for word in ("-L", host)]
    with running("turnutils_peer", "-p", str(port), *listening):
        yield port


@contextmanager
def bench(folder: Path, **settings: Any) -> Iterator[Bench]:
    """A relay for many lines."""
    need("turnutils_uclient")
    with (
        echo_peer("127.0.0.1", "::1") as peer_port,
        relay(
            folder,
            max_unproved_replies_per_second=1000,
            max_tls_handshakes_per_second=1000,
            max_allocations_per_address=0,
            mobility=True,
            **settings,
        ) as server,
    ):
        yield Bench(server, peer_port)
