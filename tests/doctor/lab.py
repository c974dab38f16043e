"""Two hosts with public addresses, a server on one and the doctor on the other, and faults between.

The addresses are somebody's on the internet; here they are ours, and no packet leaves the machine.
"""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.conftest import need, need_root
from tests.namespaces import run
from tests.patience import PATIENCE
from tests.turn.kernel.hosts import Host, Relay
from turn.doctor.client import TurnClient
from turn.doctor.examine import Options, examine, examine_all
from turn.doctor.report import Section
from turn.doctor.target import Credentials, parse_url
from turn.doctor.wire import UdpWire

SERVER, CLIENT = "5.5.5.1", "5.5.5.2"
SECOND = "5.5.5.3"
"""Of the server too."""
NOWHERE = "5.5.5.77"
"""An address that nobody has."""
SECRET, USER, PASSWORD = "the shared secret of the lab", "alice", "secretpw"
ANSWERED_WITHIN = 4.0
"""Seconds that the doctor waits: what silence costs a test, and what a busy machine may take."""


NUMBERS = itertools.count()
"""Of this process's labs."""


def need_lab() -> None:
    """See that there can be one."""
    need_root("a network namespace")
    need("ip")
    need("nft")


class Lab:
    """The two hosts."""

    def __init__(self, name: str) -> None:
        self.server = Host(f"{name}-s", "s0", SERVER, "2a0a::1")
        self.client = Host(f"{name}-c", "c0", CLIENT, "2a0a::2")

    def firewall(self, *rules: str) -> None:
        """What the server's host does not let in."""
        lines = "\n".join(f"    {rule}" for rule in rules)
        table = (
            "table inet doctor {\n  chain input {\n"
            f"    type filter hook input priority 0; policy accept;\n{lines}\n  }}\n}}\n"
        )
        subprocess.run(
            ["ip", "netns", "exec", self.server.namespace, "nft", "-f", "-"],
            input=table, text=True, check=True,
        )  # fmt: skip

    def symmetric_nat(self) -> None:
        """Have what leaves the client's host take another port for each destination."""
        table = (
            "table ip doctor {\n  chain output {\n    type nat hook postrouting priority 100;\n"
            "    oif c0 masquerade fully-random\n  }\n}\n"
        )
        subprocess.run(
            ["ip", "netns", "exec", self.client.namespace, "nft", "-f", "-"],
            input=table, text=True, check=True,
        )  # fmt: skip

    def open_firewall(self) -> None:
        """Let everything through again, as it is."""
        for host in (self.server, self.client):
            command = ["ip", "netns", "exec", host.namespace, "nft", "flush", "ruleset"]
            subprocess.run(command, check=True)

    def examine(
        self, url: str, credentials: Credentials, *, at_server: bool = False, **options: Any
    ) -> Section:
        """What the doctor finds, from the client's host or from the server's own."""
        wanted = Options(credentials, **{"load": False, "patience": ANSWERED_WITHIN, **options})
        with (self.server if at_server else self.client).inside():
            return asyncio.run(examine(parse_url(url), wanted))

    def examine_all(self, *urls: str) -> list[Section]:
        """The same for several servers in one run, without credentials."""
        wanted = Options(load=False, patience=ANSWERED_WITHIN)
        with self.client.inside():
            return asyncio.run(examine_all([parse_url(url) for url in urls], wanted))

    @contextmanager
    def held(self, credentials: Credentials, count: int = 1) -> Iterator[None]:
        """Hold allocations of somebody's meanwhile."""
        loop = asyncio.new_event_loop()

        async def hold() -> list[TurnClient]:
            clients = []
            for _ in range(count):
                clients.append(TurnClient(await UdpWire.open(SERVER, 3478)))
                await clients[-1].allocate(credentials)
            return clients

        with self.client.inside():
            clients = loop.run_until_complete(hold())
            try:
                yield
            finally:
                for client in clients:
                    loop.run_until_complete(client.close())
                loop.close()


@contextmanager
def lab() -> Iterator[Lab]:
    """Make the hosts and the cable between them; needs root."""
    one = Lab(f"ibd{os.getpid()}-{next(NUMBERS)}")
    try:
        for host in (one.server, one.client):
            run("ip", "netns", "add", host.namespace)
            run("ip", "-n", host.namespace, "link", "set", "lo", "up")
        run("ip", "link", "add", "c0", "netns", one.client.namespace,
            "type", "veth", "peer", "name", "s0", "netns", one.server.namespace)  # fmt: skip
        for host in (one.server, one.client):
            run("ip", "-n", host.namespace, "addr", "add", "dev", host.device, f"{host.ipv4}/24")
            run("ip", "-n", host.namespace, "link", "set", host.device, "up")
        run("ip", "-n", one.server.namespace, "addr", "add", "dev", "s0", f"{SECOND}/24")
        for host in (one.server, one.client):
            ipv6 = ("addr", "add", "dev", host.device, f"{host.ipv6}/64", "nodad")
            run("ip", "-n", host.namespace, *ipv6)
        yield one
    finally:
        for host in (one.server, one.client):
            subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True, check=False)


@contextmanager
def icebroker(found: Lab, folder: Path, **changes: Any) -> Iterator[None]:
    """Our relay on the server's host, in a thread of its own."""
    del folder
    wanted = {
        "listen": [f"{SERVER}:3478"],
        "relay_addresses": [SERVER],
        "secret": SECRET,
        "users": {USER: PASSWORD},
        "allow_peers": [],
        **changes,
    }
    one = Relay(found.server, **wanted)
    try:
        yield
    finally:
        one.stop()


@contextmanager
def faketime(found: Lab, folder: Path, command: Sequence[str], shift: str) -> Iterator[None]:
    """A program on the server's host whose clock is wrong, or right (``shift`` = "")."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    if shift:
        need("faketime")
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        environment |= {
            "LD_PRELOAD": str(library),
            "FAKETIME": shift,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", found.server.namespace, *command],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait(found, process, log)
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
                break


def _wait(found: Lab, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not _listens(found):
        assert process.poll() is None, log.read_text(errors="replace")
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)


def _listens(found: Lab) -> bool:
    sockets = found.server.run("ss", "-Hlun")
    return f"{SERVER}:3478" in sockets


@contextmanager
def coturn(found: Lab, folder: Path, *options: str, shift: str = "") -> Iterator[None]:
    """Debian's turnserver on the server's host, with the same users."""
    base = (
        need("turnserver"), "-n", "--no-cli", "-L", SERVER, "-E", SERVER, "-r", "icebroker",
        "--log-file", "stdout", "--simple-log", "--pidfile", str(folder / "pid"),
        "--min-port", "49152", "--max-port", "65535", "--no-rfc5780",
        # What coturn lacks by default: it would relay into every private network.
        "--denied-peer-ip=10.0.0.0-10.255.255.255", "--denied-peer-ip=172.16.0.0-172.31.255.255",
        "--denied-peer-ip=192.168.0.0-192.168.255.255",
        "--denied-peer-ip=100.64.0.0-100.127.255.255",
        "--denied-peer-ip=169.254.0.0-169.254.255.255",
    )  # fmt: skip
    users: tuple[str, ...] = ("--use-auth-secret", "--static-auth-secret", SECRET)
    if any(option in {"--lt-cred-mech", "--no-auth", "--stun-only"} for option in options):
        users = ()
    given = [option for option in base if f"un{option}" not in options]
    extra = [option for option in options if not option.startswith("un-")]
    with faketime(found, folder, [*given, *users, *extra], shift):
        yield


@contextmanager
def skewed_icebroker(found: Lab, folder: Path, shift: str) -> Iterator[None]:
    """Our relay as a process with a wrong clock."""
    file = folder / "icebroker.toml"
    file.write_text(
        f'[turn]\nlisten = ["{SERVER}:3478"]\nrelay_addresses = ["{SERVER}"]\n'
        f'secret = "{SECRET}"\ndata_plane = "userspace"\n'
    )
    command = [sys.executable, "-m", "icebroker", "turn", "-c", str(file)]
    with faketime(found, folder, command, shift):
        yield
