"""Three hosts on one machine, client --- server --- peer, and a relay on the middle one."""

import asyncio
import inspect
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.namespaces import cable, inside, ip, namespaces, run
from tests.patience import PATIENCE, wait_until
from tests.turn.live import Client, settings
from turn.kernel.carrier import is_worth
from turn.server import TurnService

MTU = 1500
DRIVER_LIKE = ("gro", "on", "rxvlan", "off", "txvlan", "off")
"""A veth takes frames where the far end receives by NAPI; tags of VLANs stay where they belong."""


class Host(NamedTuple):
    """A host: its namespace, the device that its packets leave by, and its addresses."""

    namespace: str
    device: str
    ipv4: str
    ipv6: str

    def inside(self) -> AbstractContextManager[None]:
        """Be on this host: sockets that this thread opens belong there for good."""
        return inside(self.namespace)

    def udp(self, port: int = 0, *, ipv6: bool = False) -> socket.socket:
        """A UDP socket on this host that does not wait for ever."""
        with self.inside():
            sock = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((self.ipv6 if ipv6 else self.ipv4, port))
        sock.settimeout(PATIENCE)
        return sock

    def wire(self) -> socket.socket:
        """A socket that sees and sends whole frames."""
        with self.inside():
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((self.device, 0))
        sock.settimeout(PATIENCE)
        return sock

    def mac(self) -> bytes:
        """The hardware address of its device."""
        with self.wire() as sock:
            return bytes(sock.getsockname()[4])

    def run(self, *command: str) -> str:
        """Run a command on this host."""
        return run("ip", "netns", "exec", self.namespace, *command)


class Network(NamedTuple):
    """The three hosts; the one in the middle has a device to each side."""

    client: Host
    server: Host
    """As the client sees it."""
    inner: Host
    """The server as the peer sees it."""
    peer: Host


def hosts(name: str) -> Network:
    """The hosts' names and addresses."""
    server = f"{name}-server"
    return Network(
        Host(f"{name}-client", "c0", "10.92.1.2", "fd92:1::2"),
        Host(server, "s0", "10.92.1.1", "fd92:1::1"),
        Host(server, "s1", "10.92.2.1", "fd92:2::1"),
        Host(f"{name}-peer", "p0", "10.92.2.2", "fd92:2::2"),
    )


@contextmanager
def network() -> Iterator[Network]:
    """Make the namespaces and cables; they are gone again whatever happens. Needs root."""
    found = hosts(f"ib{os.getpid()}")
    with namespaces(host.namespace for host in found):
        for one, other in ((found.client, found.server), (found.peer, found.inner)):
            cable((one.namespace, one.device), (other.namespace, other.device))
            for host in (one, other):
                ip(
                    host.namespace,
                    f"addr add dev {host.device} {host.ipv4}/24",
                    f"addr add dev {host.device} {host.ipv6}/64 nodad",
                    f"link set {host.device} up",
                )
            for family, gateway in (("-4", other.ipv4), ("-6", other.ipv6)):
                run("ip", family, "-n", one.namespace, "route", "add", "default", "via", gateway)
        yield found


def offloads(found: Network, *, client: bool, segmentation: bool) -> None:
    """Who computes checksums: with ``client`` nobody does on the cable to the server.

    The server's devices always do, so that the receiving kernel verifies what comes out of it.
    """
    for host in found:
        mine = host in {found.client, found.peer}
        on = "on" if mine and client else "off"
        many = "on" if mine and segmentation else "off"
        host.run("ethtool", "-K", host.device, "tx", on, "tx-udp-segmentation", many)


def be_driver_like(found: Network) -> None:
    """Make devices like network cards, as far as a veth can be."""
    for host in found:
        host.run("ethtool", "-K", host.device, *DRIVER_LIKE)


class Relay:
    """A relay in a thread of its own that lives on the server's host."""

    def __init__(self, server: Host, **changes: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._error: Exception | None = None
        self.service: TurnService
        self._thread = threading.Thread(target=self._run, args=(server, changes), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._error:
            raise self._error

    def _run(self, server: Host, changes: dict[str, Any]) -> None:
        with server.inside():
            self.service = TurnService(settings(**changes))
            try:
                self._loop.run_until_complete(self.service.start())
            except Exception as error:  # noqa: BLE001 - raised again where the relay was asked for
                self._error = error
            self._ready.set()
            if not self._error:
                self._loop.run_forever()
            self._loop.run_until_complete(self.service.stop())
            self._loop.close()

    def call(self, function: Callable[[], Any]) -> Any:
        """Do something in the relay's own thread; gives what it gives, or what that comes to."""

        async def wrapped() -> Any:
            found = function()
            return await found if inspect.isawaitable(found) else found

        return asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(PATIENCE)

    def settle(self) -> None:
        """Wait until the kernel has each route that is worth it by now."""
        waiting = getattr(self.service._plane, "_waiting", {})
        wait_until(lambda: not self.call(lambda: any(map(is_worth, waiting))))

    def stop(self) -> None:
        """Stop it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def relay(found: Network, plane: str, **changes: Any) -> Iterator[Relay]:
    """Run a relay between client and peer, by IPv4 and IPv6."""
    one = Relay(
        found.server,
        **{
            "listen": [f"{found.server.ipv4}:3478", f"[{found.server.ipv6}]:3478"],
            "relay_addresses": [found.inner.ipv4, found.inner.ipv6],
            "allow_peers": ["10.92.0.0/16", "fd92::/16"],
            "data_plane": plane,
        }
        | changes,
    )
    try:
        yield one
    finally:
        one.stop()


class HostClient(Client):
    """A TURN client on a host; from allocation on, plain sockets are enough."""

    def __init__(
        self,
        host: Host,
        server: tuple[str, int],
        *,
        ipv6: bool = False,
        user: tuple[str, str] = ("alice", "pw"),
    ) -> None:
        super().__init__(*user)
        self.sock = host.udp(ipv6=ipv6)
        self.sock.connect(server)
        self.sock.setblocking(False)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a request to its end."""
        return asyncio.run(work)


def source_of(name: str) -> Path:
    """A file of the kernel plane."""
    return Path(__file__).parents[3] / "turn" / "kernel" / name
