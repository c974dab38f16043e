"""The ways in which Redis may be set up: one server, TLS, Sentinels, a Cluster; all on loopback.

The nodes log in as the user of ``deploy/redis/users.acl`` everywhere, and may do nothing else.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import redis
from redis.crc import key_slot

from config.redis import RedisTls
from tests.certificates import certificate
from tests.interop.process import ROOT, free_port
from tests.patience import PATIENCE
from tests.redis_server import RedisServer

ACL = ROOT / "deploy" / "redis" / "users.acl"
PASSWORD = "of-the-tests:@/?"
PREFIX = "icebroker"
"""The prefix that the shipped users.acl is for."""
USER = f"icebroker:{quote(PASSWORD, safe='')}"
KNOWN_AS = "calls"
"""What the Sentinels call our primary."""
DOWN_AFTER = 2000
"""Milliseconds of silence that a server of theirs may be busy with something else, as this machine
may be: with fewer they depose the new primary as well."""


class Site:
    """Redis, however it is set up."""

    tls = RedisTls()
    url = ""

    @property
    @abstractmethod
    def server(self) -> RedisServer:
        """The server that holds our keys now."""

    @property
    def client(self) -> "redis.Redis":
        """An administrator's connection to it."""
        return self.server.client

    def every_key(self) -> list[bytes]:
        """Every key of the server that holds ours."""
        return self.server.every_key()

    def without_ttl(self) -> list[bytes]:
        """Keys that would stay for ever."""
        return self.server.without_ttl()

    def change_servers(self) -> None:
        """Have another server hold our keys, from now on."""
        raise NotImplementedError


class One(Site):
    """A single server."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.url = f"redis://{USER}@127.0.0.1:{server.port}"

    @property
    def server(self) -> RedisServer:
        return self._server


class Sentinels(Site):
    """A primary, its replica, and three Sentinels."""

    def __init__(self, servers: Sequence[RedisServer], watchers: Sequence[RedisServer]) -> None:
        self._servers = list(servers)
        self._watcher = watchers[0]
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in watchers)
        self.url = f"redis+sentinel://{USER}@{hosts}/{KNOWN_AS}"

    @property
    def server(self) -> RedisServer:
        _, port = _ask(self._watcher, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", KNOWN_AS)
        return next(one for one in self._servers if one.port == int(port))

    def change_servers(self) -> None:
        """Kill the primary; the Sentinels make the replica one, and the dead one comes back.

        It takes itself for a primary still: only after ten seconds they tell it what it is.
        """
        primary = self.server
        for other in [one for one in self._servers if one is not primary]:
            wait(partial(self._has_a_copy, other))  # else it would have older data
        primary.kill()
        wait(lambda: self.server is not primary)
        primary.start()

    @staticmethod
    def _has_a_copy(server: RedisServer) -> bool:
        info: Any = server.client.info("replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")


class Cluster(Site):
    """Three servers that share the slots."""

    def __init__(self, servers: Sequence[RedisServer], bus_ports: Sequence[int]) -> None:
        self._servers = list(servers)
        self._bus_ports = list(bus_ports)
        self.slot = key_slot(b"{" + PREFIX.encode() + b"}")
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in servers)
        self.url = f"redis+cluster://{USER}@{hosts}"

    @property
    def server(self) -> RedisServer:
        owner = self._owner(self._servers[0])
        return next(one for one in self._servers if one.port == owner)

    def change_servers(self) -> None:
        """Move our slot with its keys, as redis-cli --cluster reshard does."""
        wait(lambda: len({self._owner(one) for one in self._servers}) == 1)  # it moved a moment ago
        source = self.server
        target = next(one for one in self._servers if one is not source)
        source_id, target_id = (_ask(one, "CLUSTER", "MYID").decode() for one in (source, target))
        _ask(target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", source_id)
        _ask(source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", target_id)
        while keys := _ask(source, "CLUSTER", "GETKEYSINSLOT", self.slot, 100):
            _ask(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 1000, "KEYS", *keys)
        for one in (target, source, *self._servers):
            _ask(one, "CLUSTER", "SETSLOT", self.slot, "NODE", target_id)

    def join(self, ports: Sequence[int] = ()) -> None:
        """Make them one Cluster, each with a third of the slots.

        :param ports: by which they know each other; none: as we know them.
        """
        first, *others = self._servers
        others_ports = ports[1:] or [one.port for one in others]
        step = 16384 // len(self._servers) + 1
        for number, one in enumerate(self._servers):
            last = min(16383, (number + 1) * step - 1)
            _ask(one, "CLUSTER", "ADDSLOTSRANGE", number * step, last)
        for port, bus_port in zip(others_ports, self._bus_ports[1:], strict=True):
            _ask(first, "CLUSTER", "MEET", "127.0.0.1", port, bus_port)
        wait(lambda: all(_knows_all(one, len(self._servers)) for one in self._servers))

    def _owner(self, asked: RedisServer) -> int:
        """The port of whoever holds our slot, as one server has heard."""
        rows = _ask(asked, "CLUSTER", "SLOTS")
        return int(next(row[2][1] for row in rows if row[0] <= self.slot <= row[1]))


@contextmanager
def plain(folder: Path) -> Iterator[Site]:
    """One server."""
    with ExitStack() as stack:
        yield One(_run(stack, folder / "plain"))


class Tls:
    """A certificate that is everyone's, and its own authority: shown by servers and by nodes."""

    def __init__(self, folder: Path) -> None:
        pair = certificate(folder, authority=True)
        self.files = RedisTls(pair[0], *pair)

    def options(self) -> tuple[int, list[str]]:
        """A port for TLS, and what a server is told; who shows nothing is refused, by default."""
        options = ["--tls-port", str(port := free_port())]
        names = ("--tls-ca-cert-file", "--tls-cert-file", "--tls-key-file")
        for name, file in zip(names, self.files, strict=True):
            options += [name, str(file)]
        return port, options


@contextmanager
def tls(folder: Path) -> Iterator[Site]:
    """One server that nodes reach over TLS, where both show who they are."""
    made = Tls(folder)
    port, options = made.options()
    with ExitStack() as stack:
        site = One(_run(stack, folder / "tls", *options))
        site.url = f"rediss://{USER}@127.0.0.1:{port}"
        site.tls = made.files
        yield site


@contextmanager
def sentinels(folder: Path) -> Iterator[Site]:
    """A primary, a replica, three Sentinels."""
    with ExitStack() as stack:
        options = ("--repl-diskless-sync-delay", "0")
        primary = _run(stack, folder / "one", *options)
        copies = ("--replicaof", f"127.0.0.1 {primary.port}")
        replica = _run(stack, folder / "two", *options, *copies)
        watchers = []
        for number in range(3):
            watcher = folder / f"sentinel-{number}"
            watcher.mkdir()
            (watcher / "sentinel.conf").write_text(
                f"sentinel monitor {KNOWN_AS} 127.0.0.1 {primary.port} 2\n"
                f"sentinel down-after-milliseconds {KNOWN_AS} {DOWN_AFTER}\n"
                f"sentinel failover-timeout {KNOWN_AS} 2000\n"
            )
            server = RedisServer(watcher, sentinel=watcher / "sentinel.conf")
            stack.callback(server.close)
            server.start()
            watchers.append(server)
        # Each has to know the replica and the others before it can do anything for us.
        for server in watchers:
            wait(partial(_ask, server, "SENTINEL", "REPLICAS", KNOWN_AS))
            wait(partial(_ask, server, "SENTINEL", "CKQUORUM", KNOWN_AS))
        yield Sentinels([primary, replica], watchers)


@contextmanager
def sentinel_over_tls(folder: Path) -> Iterator[Site]:
    """A primary and one Sentinel, which know only who shows a certificate."""
    made = Tls(folder)
    (port, options), (watcher_port, watcher_options) = made.options(), made.options()
    with ExitStack() as stack:
        site = One(_run(stack, folder / "one", "--tls-replication", "yes", *options))
        words = [*watcher_options, "--tls-replication", "yes"]
        pairs = zip(words[::2], words[1::2], strict=True)
        _watch(stack, folder, port, *(f"{name[2:]} {value}" for name, value in pairs))
        site.url = f"rediss+sentinel://{USER}@127.0.0.1:{watcher_port}/{KNOWN_AS}"
        site.tls = made.files
        yield site


@contextmanager
def guarded_sentinel(folder: Path, *lines: str) -> Iterator[Site]:
    """A primary and one Sentinel. :param lines: of its configuration: who may ask it."""
    with ExitStack() as stack:
        site = One(_run(stack, folder / "one"))
        watcher = _watch(stack, folder, site.server.port, *lines)
        site.url = f"redis+sentinel://{USER}@127.0.0.1:{watcher.port}/{KNOWN_AS}"
        yield site


@contextmanager
def cluster_over_tls(folder: Path) -> Iterator[Site]:
    """A Cluster whose servers, and nodes, know only who shows a certificate."""
    made = Tls(folder)
    options = ("--cluster-enabled", "yes", "--tls-cluster", "yes")
    with ExitStack() as stack:
        servers, ports, bus_ports = [], [], []
        for number in range(3):
            port, own = made.options()
            bus_ports.append(free_port())
            bus = ("--cluster-port", str(bus_ports[-1]))
            servers.append(_run(stack, folder / f"node-{number}", *options, *bus, *own))
            ports.append(port)
        site = Cluster(servers, bus_ports)
        site.join(ports)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        site.url = f"rediss+cluster://{USER}@{hosts}"
        site.tls = made.files
        yield site


@contextmanager
def cluster(folder: Path) -> Iterator[Site]:
    """Three servers, one Cluster."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    with ExitStack() as stack:
        bus_ports = [free_port() for _ in range(3)]
        servers = [
            _run(stack, folder / f"node-{port}", *options, "--cluster-port", str(port))
            for port in bus_ports
        ]
        site = Cluster(servers, bus_ports)
        site.join()
        yield site


SITES: dict[str, Callable[[Path], Any]] = {
    "plain": plain, "tls": tls, "sentinels": sentinels, "cluster": cluster,
}  # fmt: skip


def users(folder: Path) -> Path:
    """The shipped users.acl with a password, and an administrator of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "users.acl"
    shipped = ACL.read_text().replace("resetpass", f">{PASSWORD}")
    path.write_text("user default on nopass ~* &* +@all\n" + shipped)
    return path


def wait(condition: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def _run(stack: ExitStack, folder: Path, *options: str) -> RedisServer:
    server = RedisServer(folder, "--aclfile", str(users(folder)), *options)
    stack.callback(server.close)
    server.start()
    return server


def _watch(stack: ExitStack, folder: Path, port: int, *lines: str) -> RedisServer:
    """Run a Sentinel. :param port: the primary's."""
    watcher = folder / "sentinel"
    watcher.mkdir()
    monitor = f"sentinel monitor {KNOWN_AS} 127.0.0.1 {port} 1"
    (watcher / "sentinel.conf").write_text("\n".join((*lines, monitor, "")))
    server = RedisServer(watcher, sentinel=watcher / "sentinel.conf")
    stack.callback(server.close)
    server.client = redis.Redis(port=server.port, password=PASSWORD, socket_timeout=PATIENCE)
    server.start()
    return server


def _knows_all(server: RedisServer, count: int) -> bool:
    info = dict(
        line.split(":") for line in _ask(server, "CLUSTER", "INFO").decode().split() if ":" in line
    )
    rows = _ask(server, "CLUSTER", "SLOTS")
    return info["cluster_state"] == "ok" and len({row[2][1] for row in rows}) == count


def _ask(server: RedisServer, *command: Any) -> Any:
    return server.client.execute_command(*command)
