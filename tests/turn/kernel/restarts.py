"""A relay in a process of its own that is killed and started again, and a call that goes on."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.namespaces import run
from tests.patience import PATIENCE, wait_until
from tests.turn.kernel.hosts import HostClient, Network
from tests.turn.kernel.script import CHANNEL, Stage, channel_data
from tests.turn.live import UDP
from turn.codec import registry
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.kernel.carrier import LOOK, WORTH

DATA_INDICATION = b"\0\x17"
ROOT = Path(__file__).parents[3]
BURST = 16
"""Packets each way in a step of the call: well below what a socket's buffer holds."""
CONFIGURATION = """
[turn]
listen = ["{network.server.ipv4}:3478", "[{network.server.ipv6}]:3478"]
relay_addresses = ["{network.inner.ipv4}", "{network.inner.ipv6}"]
allow_peers = ["10.92.0.0/16", "fd92::/16"]
secret = "thirty-two characters of a secret"
state_directory = "{folder}/state"
kernel_directory = "{folder}/bpf/relay"
data_plane = "{plane}"
drain_timeout = 0
[turn.users]
alice = "pw"
[signaling]
drain_timeout = 0
[admin]
listen = "127.0.0.1:0"
[log]
format = "json"
"""


@contextmanager
def bpffs(folder: Path) -> Iterator[Path]:
    """Mount one: nothing that is pinned there outlives the test."""
    folder.mkdir()
    run("mount", "-t", "bpf", "bpf", str(folder))
    try:
        yield folder
    finally:
        run("umount", str(folder))


class Process:
    """The relay's process, or the loader's."""

    def __init__(
        self, network: Network, folder: Path, plane: str = "kernel", command: str = "turn"
    ) -> None:
        self.file = folder / f"{command}.toml"
        self.file.write_text(CONFIGURATION.format(network=network, folder=folder, plane=plane))
        self._namespace = f"--net=/run/netns/{network.server.namespace}"
        self._name = command
        self._log = folder / f"{command}-{id(self)}.log"
        self._process: subprocess.Popen[bytes]

    def start(self, *wrapper: str, options: Sequence[str] = ()) -> None:
        """Start it, as far as the fork. :param wrapper: what runs the command."""
        command = [sys.executable, "-m", "icebroker", self._name, "-c", str(self.file), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", self._namespace, *wrapper, *command], cwd=ROOT, stdout=log, stderr=log
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def has_log(self) -> bool:
        """Whether it was ever started."""
        return self._log.exists()

    @property
    def log(self) -> str:
        """What it and those before it said."""
        return self._log.read_text()

    def wait(self, happened: Callable[[], object]) -> None:
        """Wait until something is so while it runs."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def end(self, how: signal.Signals, *, wait: bool = True) -> None:
        """Send a signal, and see it end."""
        self._process.send_signal(how)
        if wait:
            self._process.wait(PATIENCE)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Have it do nothing for a while: what passes meanwhile went by the kernel."""
        self._process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{self._process.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it, however it is."""
        if self._process.poll() is None:
            self.end(signal.SIGTERM)


class Call:
    """Packets between a client and a peer through a channel; knows which were lost."""

    def __init__(self, network: Network, *, ipv6: bool = False) -> None:
        server = network.server.ipv6 if ipv6 else network.server.ipv4
        self.client = HostClient(network.client, (server, 3478), ipv6=ipv6)
        self.peer = network.peer.udp(ipv6=ipv6)
        self.peer.setblocking(False)
        self._family = (registry.REQUESTED_ADDRESS_FAMILY, 2 if ipv6 else 1)
        self.relayed: Address
        self.sent = 0
        self._missing_at_peer: set[int] = set()
        self._missing_at_client: set[int] = set()
        self.replies: list[Message] = []

    def close(self) -> None:
        """Close the sockets."""
        self.client.sock.close()
        self.peer.close()

    def begin(self) -> None:
        """Allocate and bind, as soon as the relay is there; some packets, and the kernel has it."""
        relayed = self.ask(Method.ALLOCATE, UDP, self._family).get(registry.XOR_RELAYED_ADDRESS)
        assert relayed is not None
        self.relayed = relayed
        peer = Address(*self.peer.getsockname()[:2])
        self.peer_address = peer
        self.admit()
        for _ in range(WORTH):
            self.step(1)
            self.wait(lambda: not self.missing)
        soon = time.monotonic() + 3 * LOOK
        self.wait(lambda: time.monotonic() > soon)

    def admit(self, *, calling: bool = False) -> None:
        """Have the peer's packets let through, or go on with that."""
        number = (registry.CHANNEL_NUMBER, CHANNEL)
        peer = (registry.XOR_PEER_ADDRESS, self.peer_address)
        self.ask(Method.CHANNEL_BIND, number, peer, calling=calling)

    def wrapped(self, body: bytes) -> bytes:
        """What carries a payload to the peer."""
        return channel_data(body)

    @property
    def missing(self) -> int:
        """Packets that were sent and have not arrived."""
        return len(self._missing_at_peer) + len(self._missing_at_client)

    def step(self, count: int = BURST) -> None:
        """Send some packets each way, and read what has come."""
        for _ in range(count):
            number = self.sent
            self.sent += 1
            self._missing_at_peer.add(number)
            self._missing_at_client.add(number)
            body = number.to_bytes(8, "big")
            self._send(self.wrapped(body))
            self.peer.sendto(body, self.relayed)
        self.read()

    def _send(self, data: bytes) -> None:
        try:
            self.client.sock.send(data)
        except ConnectionRefusedError:  # an earlier request found no relay; this was not sent
            self.client.sock.send(data)

    def read(self) -> None:
        """Read what has come."""
        try:
            while data := self.peer.recv(2048):
                self._missing_at_peer.discard(int.from_bytes(data, "big"))
        except BlockingIOError:
            pass
        try:
            while data := self.client.sock.recv(2048):
                if data[0] >> 6 or data[:2] == DATA_INDICATION:
                    body = Stage.payload_of(data)
                    self._missing_at_client.discard(int.from_bytes(body, "big"))
                else:
                    self.replies.append(parse_untrusted(data))
        except (BlockingIOError, ConnectionRefusedError):
            pass

    def go_on(self, done: Callable[[], Any]) -> None:
        """Send and read until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline
            self.step()
            time.sleep(0.0003)

    def wait(self, done: Callable[[], Any]) -> None:
        """Read until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline
            self.read()
            time.sleep(0.001)

    def ask(self, method: Method, *attributes: Any, calling: bool = False) -> Message:
        """Ask until there is a success; what is not answered is sent again as it was.

        :param calling: packets go on meanwhile.
        """
        request = self.client.encode(method, *attributes)
        while True:
            self._send(request)
            reply = self._reply(request[8:20], calling=calling)
            if reply is None:
                continue
            if reply.get(registry.ERROR_CODE) is None:
                return reply
            assert (reply.get(registry.ERROR_CODE) or (0,))[0] in {401, 438}, reply
            self.client.nonce = reply.get(registry.NONCE) or self.client.nonce
            request = self.client.encode(method, *attributes)

    def _reply(self, transaction: bytes, *, calling: bool) -> Message | None:
        """The answer to a request, if it comes soon."""
        late = time.monotonic() + 0.5

        def found() -> list[Message]:
            return [each for each in self.replies if each.transaction_id == transaction]

        (self.go_on if calling else self.wait)(lambda: found() or time.monotonic() > late)
        return next(iter(found()), None)


class IndicationCall(Call):
    """The same by Send and Data indications."""

    def admit(self, *, calling: bool = False) -> None:
        """Install the permission."""
        peer = (registry.XOR_PEER_ADDRESS, self.peer_address)
        self.ask(Method.CREATE_PERMISSION, peer, calling=calling)

    def wrapped(self, body: bytes) -> bytes:
        """A Send indication."""
        peer, data = (registry.XOR_PEER_ADDRESS, self.peer_address), (registry.DATA, body)
        return build(Method.SEND, MessageClass.INDICATION, bytes(12), (peer, data))
