"""Three hosts on one machine: client --- server --- peer, joined by veth pairs."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.namespaces import cable, inside, ip, namespaces, run, set_kernel

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
    with namespaces((CLIENT, SERVER, PEER)):
        for here, device, address, there, other, other_address in CABLES:
            cable((here, device), (there, other))
            for name, end, host in ((here, device, address), (there, other, other_address)):
                ip(name, f"addr add {host}/24 dev {end}", f"link set {end} up")
                with inside(name), suppress(RuntimeError):  # a kernel may lack one of them
                    run("ethtool", "-K", end, *OFFLOADS)
            ip(here, f"route add default via {other_address}")
        set_kernel(SERVER, {"net/ipv4/ip_forward": "1"})
        yield
