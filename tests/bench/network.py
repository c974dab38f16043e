"""Three hosts on one machine: client --- server --- peer, joined by veth; or the server alone."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

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
def three_hosts() -> Iterator[None]:
    """Make the namespaces; they are gone again whatever happens. Needs root."""
    _remove()
    try:
        for name in (CLIENT, SERVER, PEER):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for here, device, address, there, other, other_address in CABLES:
            _run(
                "ip", "link", "add", device, "netns", here,
                "type", "veth", "peer", "name", other, "netns", there,
            )  # fmt: skip
            for name, end, host in ((here, device, address), (there, other, other_address)):
                _run("ip", "-n", name, "addr", "add", f"{host}/24", "dev", end)
                _run("ip", "-n", name, "link", "set", end, "up")
                _run("ip", "netns", "exec", name, "ethtool", "-K", end, *OFFLOADS)
            _run("ip", "-n", here, "route", "add", "default", "via", other_address)
        _run("ip", "netns", "exec", SERVER, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield
    finally:
        _remove()


def _remove() -> None:
    for name in (CLIENT, SERVER, PEER):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "ethtool" not in command:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
