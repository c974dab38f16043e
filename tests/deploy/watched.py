"""Both services with something to do, and a Prometheus that watches them."""

import asyncio
import json
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from aioice import stun
from aioice.turn import create_turn_endpoint

from config.certificate import self_signed
from signaling.client import Client
from tests.conftest import need
from tests.interop.process import free_port, icebroker
from tests.namespaces import looping
from tests.patience import PATIENCE, until

RULES = Path(__file__).parents[2] / "deploy/prometheus"
USER, PASSWORD = "alice", "secretpw"


class Served(NamedTuple):
    """Where both services are."""

    turn: int
    signaling: int
    admin: int


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Run ``icebroker serve`` on loopback, with TLS."""
    certificate, key = self_signed(["127.0.0.1"], folder)
    ports = Served(free_port(), free_port(), free_port())
    file = folder / "icebroker.toml"
    file.write_text(
        f"""
        [turn]
        listen = ["127.0.0.1:{ports.turn}"]
        listen_tls = ["127.0.0.1:{free_port()}"]
        tls_certificate = "{certificate}"
        tls_key = "{key}"
        secret = "the shared secret of the tests"
        allow_peers = ["127.0.0.0/8"]
        users = {{{USER} = "{PASSWORD}"}}
        [signaling]
        listen = "127.0.0.1:{ports.signaling}"
        [admin]
        listen = "127.0.0.1:{ports.admin}"
        """
    )
    with icebroker(["serve", "-c", str(file)], ports.admin, folder / "icebroker.log"):
        yield ports


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=PATIENCE) as page:
                return bool(page.status == 200)
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression gives now. :raises HTTPError: it is no expression."""
        question = urllib.parse.urlencode({"query": expression})
        address = f"{self._url}/api/v1/query?{question}"
        with urllib.request.urlopen(address, timeout=PATIENCE) as page:
            answer = json.load(page)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


@contextmanager
def prometheus(folder: Path, admin_port: int) -> Iterator[Prometheus]:
    """Run Prometheus with our rules, so quick that seconds are as minutes.

    It begins to scrape five seconds after its start; it is given when it has, so that what
    happens from then on has rates.
    """
    settings = yaml.safe_load((RULES / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    settings["rule_files"] = [str(RULES / name) for name in settings["rule_files"]]
    (job,) = settings["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{admin_port}"]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                need("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    made = Prometheus(port)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (made.ready() and made.query("count_over_time(up[1m]) > 1")):
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield made
    finally:
        process.kill()
        process.wait(10)


class _Sink(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del data, addr
        self.received += 1


@contextmanager
def busy(ports: Served) -> Iterator[None]:
    """Have the services do something meanwhile."""
    enough = threading.Event()
    with looping() as start:
        work = start(_load(ports, enough))
        try:
            yield
        finally:
            enough.set()
            work.result(PATIENCE)


async def _load(ports: Served, enough: threading.Event) -> None:
    """Two relayed clients that talk, two people in a room, and one who guesses a password."""
    server = ("127.0.0.1", ports.turn)
    one, heard_by_one = await create_turn_endpoint(_Sink, server, USER, PASSWORD)
    two, heard_by_two = await create_turn_endpoint(_Sink, server, USER, PASSWORD, transport="tcp")
    url = f"ws://127.0.0.1:{ports.signaling}/ws"
    async with Client(url, name="Ann") as ann, Client(url, name="Bob") as bob:
        await ann.join("room")
        (other,) = (await bob.join("room"))["peers"]
        while not enough.is_set():
            await bob.message("hello", to=other["id"])
            await bob.stats(other["id"], "relay", 0.02)
            await ann.ice_servers()
            for _ in range(20):
                one.sendto(b"x" * 100, two.get_extra_info("sockname"))
                two.sendto(b"y" * 100, one.get_extra_info("sockname"))
            try:
                await create_turn_endpoint(_Sink, server, USER, "guessed")
            except stun.TransactionFailed as refused:
                assert refused.response.error_code == 401
            await asyncio.sleep(0.1)
    for relayed, sink in ((one, heard_by_one), (two, heard_by_two)):
        relayed.close()
        await until(lambda sink=sink: sink.received > 20)  # type: ignore[misc]
