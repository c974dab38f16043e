"""Three hosts on one machine: client --- server --- peer, joined by veth pairs."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CLIENT, SERVER, PEER = "icebench-client", "icebench-server", "icebench-peer"
SERVER_FOR_CLIENTS, SERVER_FOR_PEERS = "10.91.1.1", "10.91.2.1"
CLIENT_HOST, PEER_HOST = "10.91.1.2", "10.91.2.2"
# (namespace, device, address, the other end's namespace, device, address)
CABLES = (
    (CLIENT, "c0", CLIENT_HOST, SERVER, "s0", SERVER_FOR_CLIENTS),
    (PEER, "p0", PEER_HOST, SERVER, "s1", SERVER_FOR_PEERS),
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
