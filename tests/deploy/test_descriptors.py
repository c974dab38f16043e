"""Sockets that the service manager keeps: through a restart not a packet is lost in user space."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from config.systemd import DescriptorStore
from tests.deploy.manager import Manager
from tests.interop.process import free_port
from tests.turn.live import Client
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from tests.patience import PATIENCE

ROOT = Path(__file__).parents[2]
CHANNEL = 0x4001
BURST = 40


class Restarted:
    """A relay under a manager, and a client of it with a channel."""

    def __init__(self, folder: Path) -> None:
        self.port, self.admin = free_port(), free_port()
        self.manager = Manager(folder)
        self.file = folder / "icebroker.toml"
        self.write(self.port)
        self.client = Client()
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))
        self.peer.settimeout(PATIENCE)
        self.relayed: Address
        self.process: subprocess.Popen[bytes]

    def write(self, port: int) -> None:
        self.file.write_text(
            f'[turn]\nlisten = ["127.0.0.1:{port}"]\ndata_plane = "userspace"\n'
            f'state_directory = "{self.file.parent}/state"\nallow_peers = ["127.0.0.0/8"]\n'
            'secret = "thirty-two characters of a secret"\n[turn.users]\nalice = "pw"\n'
            f'[admin]\nlisten = "127.0.0.1:{self.admin}"\n'
        )

    def start(self) -> None:
        command = [sys.executable, "-m", "icebroker", "turn", "-c", str(self.file)]
        self.process = self.manager.start(*command, cwd=ROOT, stderr=subprocess.DEVNULL)
        self.manager.wait_ready()

    async def call(self) -> None:
        await self.client.connect(self.port)
        self.relayed = await self.client.allocate()
        await self.client.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, CHANNEL),
            (registry.XOR_PEER_ADDRESS, Address(*self.peer.getsockname())),
        )

    async def send(self, count: int) -> None:
        for number in range(count):
            await self.client.send(b"\x40\x01\x00\x02" + number.to_bytes(2, "big"))
            self.peer.sendto(number.to_bytes(2, "big"), self.relayed)

    async def check(self, count: int) -> None:
        """See that each packet has arrived, once and in order."""
        for number in range(count):
            body = number.to_bytes(2, "big")
            assert await asyncio.to_thread(self.peer.recv, 100) == body
            assert await self.client.receive() == b"\x40\x01\x00\x02" + body

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(10)
        self.manager.hear_all()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.client.sock.close()
        self.peer.close()
        self.manager.close()


@pytest_asyncio.fixture(name="restarted")
async def restarted_fixture(tmp_path: Path) -> AsyncIterator[Restarted]:
    found = Restarted(tmp_path)
    found.start()
    await found.call()
    yield found
    found.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGUSR1], ids=["kill -9", "restart"])
async def test_what_comes_meanwhile_waits(restarted: Restarted, how: signal.Signals):
    await restarted.send(1)
    await restarted.check(1)
    restarted.end(how)
    await restarted.send(BURST)
    with socket.create_connection(("127.0.0.1", restarted.port), timeout=PATIENCE) as waiting:
        restarted.start()
        await restarted.check(BURST)
        waiting.sendall(restarted.client.encode(Method.BINDING))
        assert waiting.recv(2) == b"\x01\x01"
    reply = await restarted.client.request(Method.REFRESH)
    assert reply.get(registry.LIFETIME) == 600
    await restarted.send(BURST)
    await restarted.check(BURST)


async def test_a_port_is_kept_as_long_as_its_allocation(restarted: Restarted):
    manager = restarted.manager
    manager.hear_all()
    relay = f"relay-127.0.0.1-{restarted.relayed.port}"
    listening = {f"{kind}-127.0.0.1-{restarted.port}" for kind in ("udp", "tcp")}
    assert set(manager.kept) == {relay, *listening}
    await restarted.client.request(Method.REFRESH, (registry.LIFETIME, 0))
    manager.hear_all()
    assert set(manager.kept) == listening


async def test_what_no_setting_asks_for_is_given_back(restarted: Restarted):
    restarted.end(signal.SIGKILL)
    assert len(restarted.manager.kept) == 3
    other = free_port()
    restarted.write(other)
    restarted.start()
    restarted.manager.hear_all()
    assert set(restarted.manager.kept) == {f"{kind}-127.0.0.1-{other}" for kind in ("udp", "tcp")}


def test_what_is_dropped_while_the_manager_is_busy_is_dropped_later(tmp_path: Path):
    """Else whoever allocates and releases fast leaves ports that nobody can have any more."""
    manager = Manager(tmp_path)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kept,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as others,
    ):
        store = DescriptorStore(str(tmp_path / "notify"), {})
        for name in ("relay-1", "relay-2"):
            store.put(name, kept)
            manager.hear_all()
        with pytest.raises(BlockingIOError):
            send_for_ever(others, tmp_path / "notify")
        store.drop("relay-1")
        store.drop("relay-2")
        manager.hear_all()
        assert list(manager.kept) == ["relay-1", "relay-2"]
        store.retry()
        manager.hear_all()
        assert not manager.kept
        store.close()
    manager.close()


def send_for_ever(sock: socket.socket, to: Path) -> None:
    """Send messages of another service."""
    while True:
        sock.sendto(b"STATUS=busy", str(to))
