"""Three hosts on one machine: client --- server --- peer, joined by veth; or the server alone."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from tests.namespaces import cable, inside, ip, namespaces, run, set_kernel

LOCK = Path("/run/icebench.lock")
CLIENT, SERVER, PEER = "icebench-client", "icebench-server", "icebench-peer"


class Place(NamedTuple):
    """Where packets travel: the namespaces, and everyone's address."""

    name: str
    client: str
    """Namespace of the clients."""
    peer: str
    client_host: str
    peer_host: str
    server_for_clients: str
    server_for_peers: str
    alone: tuple[str, str]
    """Namespace and address of a peer so near that the generator alone does the work."""


VETH = Place(
    "veth", CLIENT, PEER, "10.91.1.2", "10.91.2.2", "10.91.1.1", "10.91.2.1", (SERVER, "10.91.1.1")
)
LOOPBACK = Place(
    "loopback", SERVER, SERVER, "127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.1",
    (SERVER, "127.0.0.2"),
)  # fmt: skip
# (namespace, device, address, the other end's namespace, device, address)
CABLES = (
    (CLIENT, "c0", VETH.client_host, SERVER, "s0", VETH.server_for_clients),
    (PEER, "p0", VETH.peer_host, SERVER, "s1", VETH.server_for_peers),
)
# Real packets over the veth, one by one, as from a network card without UDP segmentation.
OFFLOADS = ("tx-udp-segmentation", "off", "gso", "off", "tx", "off")


@contextmanager
def namespaces_of(lock: TextIO) -> Iterator[None]:
    """The namespaces, once nobody else has them."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another bench is running on this machine: try again when it is done")
    with namespaces((CLIENT, SERVER, PEER)):
        yield


@contextmanager
def three_hosts() -> Iterator[None]:
    """Make the namespaces; they are gone again whatever happens. Needs root.

    :raises SystemExit: another bench runs here: neither would measure itself alone.
    """
    with LOCK.open("w") as lock, namespaces_of(lock):
        for here, device, address, there, other, other_address in CABLES:
            cable((here, device), (there, other))
            for name, end, host in ((here, device, address), (there, other, other_address)):
                ip(name, f"addr add {host}/24 dev {end}", f"link set {end} up")
                with inside(name), suppress(RuntimeError):  # a kernel may lack one of them
                    run("ethtool", "-K", end, *OFFLOADS)
            ip(here, f"route add default via {other_address}")
        set_kernel(SERVER, {"net/ipv4/ip_forward": "1"})
        yield
