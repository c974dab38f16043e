"""Floods over a network, from 131,072 forged sources: what they cost, and whom they do not reach.

The relay is a process of its own in user space, so that its memory is its own and its queues are
those of production. The flood is faster than it can answer.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.patience import PATIENCE
from tests.turn.kernel.hosts import HostClient, Network, network
from tests.turn.live import UDP, Client
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

SOURCES, FIRST = 131072, "198.18.0.0"
COUNT = 160_000
"""Datagrams at least: each source sends one, and some two."""
TOO_MANY = 1.3
"""Times what the relay can take in: a rate at which some of the flood is lost."""
TRIAL = 40_000
"""Datagrams of a trial, as fast as they go, to find out what that is on this machine now."""
MOST_GROWTH = 8 << 20
"""Bytes of memory; for an object a source there would be 64 of them each."""
VICTIM = "198.18.0.1"
MOST_TO_A_VICTIM = 2600
"""Bytes a second, once the first second's worth is spent."""
CHANNEL = b"\x40\x00\x00\x04"
EVERY = 0.005
"""Seconds between packets of the call that is there already."""
IMPATIENCE = 0.1
"""Seconds until the new client asks again."""
CONFIGURATION = """
[turn]
listen = ["{listen}:3478"]
relay_addresses = ["{relay}"]
allow_peers = ["{peer}"]
data_plane = "userspace"
[turn.users]
alice = "pw"
"""


def message(method: Method, *attributes: object, key: bytes | None = None) -> bytes:
    integrity = Integrity.SHA1 if key else Integrity.NONE
    return build(method, MessageClass.REQUEST, bytes(12), attributes, key=key, integrity=integrity)  # type: ignore[arg-type]  # attributes as they come


FORGED = (
    (registry.USERNAME, "1999999999:x"),
    (registry.REALM, "icebroker"),
    (registry.NONCE, "obMatJos2gAAAmade up"),
)
PAYLOADS = [
    message(Method.BINDING),
    message(Method.ALLOCATE, UDP),
    message(Method.ALLOCATE, UDP, *FORGED, key=bytes(16)),
    message(Method.REFRESH, *FORGED, key=bytes(16)),
    CHANNEL + b"evil",
    b"\x16\xfe\xfd" + bytes(60),
    bytes(range(64, 128)),
]
"""Everything that a stranger can say."""


class Field(NamedTuple):
    """The hosts, the relay's process, and the program that floods it."""

    hosts: Network
    pid: int
    program: Path

    def flood(self, sources: int, first: str, rate: int, count: int) -> "subprocess.Popen[bytes]":
        """Begin a flood from the client's side."""
        found = self.hosts
        words = [found.server.ipv4, "3478", first, str(sources), str(rate), str(count)]
        command = ["ip", "netns", "exec", found.client.namespace, str(self.program), *words]
        return subprocess.Popen(
            [*command, *(payload.hex() for payload in PAYLOADS)], stdout=subprocess.PIPE
        )

    def capacity(self) -> float:
        """Datagrams a second that the relay reads while more than that are there."""
        before, begin = self._read(), time.monotonic()
        with self.flood(SOURCES, FIRST, 10**6, TRIAL) as trial:
            trial.communicate(timeout=60)
            found = (self._read() - before) / (time.monotonic() - begin)
        _wait_until_it_answers(self)
        return found

    def _read(self) -> int:
        lines = self.hosts.server.run("cat", "/proc/net/snmp").splitlines()
        names, values = (line.split() for line in lines if line.startswith("Udp:"))
        return int(values[names.index("InDatagrams")])

    def resident(self) -> int:
        """Bytes of memory that the relay has."""
        status = Path(f"/proc/{self.pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def client(self) -> HostClient:
        """A client of the relay."""
        return HostClient(self.hosts.client, (self.hosts.server.ipv4, 3478))


@pytest.fixture(scope="module", name="field")
def field_fixture(tmp_path_factory) -> Iterator[Field]:
    """A relay between two hosts, and 131,072 addresses on the client's side."""
    from tests.conftest import need, need_root  # noqa: PLC0415 - pytest loads that file its own way

    need_root("network namespaces and forged addresses")
    need("ip")
    folder = tmp_path_factory.mktemp("flood")
    source, program = Path(__file__).with_name("flood.c"), folder / "flood"
    subprocess.run([need("gcc"), "-O2", "-Wall", "-Wextra", "-o", program, source], check=True)
    with network() as found:
        found.client.run("ip", "route", "add", "local", f"{FIRST}/15", "dev", "lo")
        found.server.run("ip", "route", "add", f"{FIRST}/15", "via", found.client.ipv4)
        file, log = folder / "icebroker.toml", folder / "log"
        addresses = {"listen": found.server.ipv4, "relay": found.inner.ipv4}
        file.write_text(CONFIGURATION.format(**addresses, peer=found.peer.ipv4))
        command = ["ip", "netns", "exec", found.server.namespace, sys.executable, "-m", "icebroker"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "turn", "-c", str(file)], stdout=output, stderr=output
            )
        field = Field(found, process.pid, program)
        try:
            _wait_until_it_answers(field)
            yield field
            assert process.poll() is None, log.read_text()
        finally:
            for _ in range(2):  # the second one does not wait for clients that are still there
                process.terminate()
                time.sleep(0.05)
            process.wait(PATIENCE)
        assert "Traceback" not in log.read_text()


def _wait_until_it_answers(field: Field) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        client = field.client()
        with contextlib.suppress(OSError), contextlib.closing(client):
            client.do(asyncio.wait_for(ask(client, Method.BINDING), 1))
            time.sleep(0.2)
            return
        time.sleep(0.1)
    raise AssertionError("the relay does not answer")


class Call(threading.Thread):
    """A client that has a channel to a peer, and packets both ways until it is told to stop."""

    def __init__(self, field: Field) -> None:
        super().__init__(daemon=True)
        self.client = field.client()
        self._peer = field.hosts.peer.udp()
        there = (registry.XOR_PEER_ADDRESS, Address(*self._peer.getsockname()))
        self.client.do(self.client.request(Method.ALLOCATE, UDP))
        number = (registry.CHANNEL_NUMBER, int.from_bytes(CHANNEL[:2]))
        self.client.do(self.client.request(Method.CHANNEL_BIND, number, there))
        self._peer.setblocking(False)
        self.sent = self.at_peer = self.back = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Send a packet every few milliseconds; the peer sends each back."""
        while not self._over.wait(EVERY):
            self.client.sock.send(CHANNEL + self.sent.to_bytes(4))
            self.sent += 1
            self._take()

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, relayed = self._peer.recvfrom(100)
                self.at_peer += 1
                self._peer.sendto(data, relayed)
        with contextlib.suppress(BlockingIOError):
            while self.client.sock.recv(100):
                self.back += 1

    def __enter__(self) -> "Call":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for what is on its way."""
        self._over.set()
        self.join()
        deadline = time.monotonic() + PATIENCE
        while self.back < self.sent and time.monotonic() < deadline:
            self._take()
            time.sleep(EVERY)
        self.client.sock.close()
        self._peer.close()


async def ask(client: Client, method: Method, *attributes: object) -> Message:
    """Ask again and again until there is an answer, as any client does."""
    request = client.encode(method, *attributes)
    while True:
        await client.send(request)
        with contextlib.suppress(TimeoutError):
            while (reply := await client.receive(IMPATIENCE))[8:20] != request[8:20]:
                pass  # to an earlier request that was asked twice
            return parse_untrusted(reply)


async def allocate(client: Client) -> Message:
    """Allocate as a client that has never been here."""
    client.nonce = (await ask(client, Method.ALLOCATE, UDP)).get(registry.NONCE)
    return await ask(client, Method.ALLOCATE, UDP)


def test_a_flood_from_everywhere(field: Field):
    """It costs no memory, cuts nobody off, and keeps nobody out."""
    rate = int(TOO_MANY * field.capacity())
    most = COUNT + int(PATIENCE * rate)
    before, begin = field.resident(), time.monotonic()
    with Call(field) as call, field.flood(SOURCES, FIRST, rate, most) as flood:
        time.sleep(1)
        with contextlib.closing(field.client()) as late:
            reply = late.do(asyncio.wait_for(allocate(late), PATIENCE))
            assert flood.poll() is None, "it got in after the flood, which shows nothing"
        time.sleep(max(0, begin + COUNT / rate - time.monotonic()))
        flood.terminate()
        sent = int(flood.communicate(timeout=60)[0])
    assert reply.has(registry.XOR_RELAYED_ADDRESS)
    assert sent > SOURCES
    assert call.sent > 200
    assert (call.at_peer, call.back) == (call.sent, call.sent)
    assert field.resident() - before <= MOST_GROWTH


def test_a_flood_in_a_victims_name(field: Field):
    """All of its ports together get so many bytes a second, whatever is asked for in its name."""
    seconds, rate = 3, 3000
    tap = field.hosts.client.wire()
    tap.setblocking(False)
    begin = time.monotonic()
    flood = field.flood(1, VICTIM, rate, rate * seconds)
    received = 0
    while flood.poll() is None:
        received += bytes_to(VICTIM, tap)
        time.sleep(0.01)
    took = time.monotonic() - begin
    flood.communicate()
    time.sleep(0.2)
    received += bytes_to(VICTIM, tap)
    tap.close()
    assert received > MOST_TO_A_VICTIM / 2, "nothing was reflected at all: is this thing on?"
    assert received <= MOST_TO_A_VICTIM * (took + 1)


def bytes_to(host: str, tap: socket.socket) -> int:
    """The UDP payload of what has come for a host since the last time."""
    found, wanted = 0, bytes(map(int, host.split(".")))
    with contextlib.suppress(BlockingIOError):
        while True:
            frame = tap.recv(2000)
            if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[30:34] == wanted:
                found += int.from_bytes(frame[38:40]) - 8
    return found
