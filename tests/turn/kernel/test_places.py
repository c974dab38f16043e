"""Where a relay may live: on a VLAN, on a device made of another, in a container at a bridge."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import NO_KERNEL
from tests.namespaces import cable, namespaces, run, set_kernel
from tests.patience import wait_until
from tests.turn.kernel import frames
from tests.turn.kernel.hosts import Host, Network, relay
from tests.turn.kernel.script import PEER_PORT, Stage, body, channel_data
from tests.turn.kernel.test_equal import FAMILIES
from tests.turn.kernel.test_network import address, goes_through, ip, is_carried, staged

ROOT = Path(__file__).parents[3]
SIZES = (4, 63, 1200, 1360)


def is_served(stage: Stage) -> None:
    """Packets of all sizes arrive, and the kernel carries them."""
    for size in SIZES:
        before = stage.carried()
        assert goes_through(stage, size)
        assert stage.carried() == before + 2


def moved(host: Host, device: str, network: int) -> Host:
    """The same host, reached at another device and address."""
    last = host.ipv4.rpartition(".")[2]
    ipv4, ipv6 = f"10.92.{network}.{last}", f"fd92:{network}::{last}"
    return host._replace(device=device, ipv4=ipv4, ipv6=ipv6)


def until_deleted(found: Network, client: Host, server: Host) -> Iterator[Network]:
    """Client and server as they meet now; then their devices are deleted."""
    try:
        yield found._replace(client=client, server=server)
    finally:
        for host in (client, server):
            ip(host, "link", "del", host.device)


@contextmanager
def vlan(found: Network) -> Iterator[Network]:
    """Client and server meet in a VLAN; their untagged addresses stay."""
    client, server = moved(found.client, "c0.7", 7), moved(found.server, "s0.7", 7)
    for old, new in ((found.client, client), (found.server, server)):
        made = ("link", "add", "link", old.device, "name", new.device, "type", "vlan", "id", "7")
        ip(old, *made)
        address(new)
    yield from until_deleted(found, client, server)


@contextmanager
def tunnel(found: Network) -> Iterator[Network]:
    """Client and server meet on an Ethernet of their own, in VXLAN."""
    client, server = moved(found.client, "x0", 7), moved(found.server, "x1", 7)
    for here, there, new in (
        (found.client, found.server, client),
        (found.server, found.client, server),
    ):
        ends = ("local", here.ipv4, "remote", there.ipv4, "dev", here.device)
        made = ("link", "add", new.device, "type", "vxlan", "id", "7", "dstport", "4789")
        ip(here, *made, *ends)
        address(new)
    yield from until_deleted(found, client, server)


@contextmanager
def of_a_host(found: Network, kind: str, *options: str) -> Iterator[Network]:
    """The server's device is made of another one, which is the host's."""
    server = found.server
    made = server._replace(device="made0")
    # Else it answers for the address of what is made of it, and packets come in by the wrong one.
    ignore = f"net/ipv4/conf/{server.device}/arp_ignore"
    set_kernel(server.namespace, {ignore: "1"})
    ip(server, "addr", "flush", "dev", server.device)
    ip(server, "link", "add", "link", server.device, "name", "made0", "type", kind, *options)
    address(made)
    forget = ("neigh", "flush", "dev", found.client.device)  # it has another hardware address
    ip(found.client, *forget)
    try:
        yield found._replace(server=made)
    finally:
        ip(server, "link", "del", "made0")
        set_kernel(server.namespace, {ignore: "0"})
        address(server)
        ip(found.client, *forget)


class Place(NamedTuple):
    """How to get there, the kind of device that it takes, and where the plane works then."""

    make: Callable[[Network], AbstractContextManager[Network]]
    kind: str
    devices: str


def place(kind: str, make: Callable[[Network], AbstractContextManager[Network]], devices: str):
    return pytest.param(Place(make, kind, f"at {devices}"), id=kind)


PLACES = [
    place("vlan", vlan, "lo, s0, s0.7, s1"),
    place("vxlan", tunnel, "lo, s0, s1, x1"),
    place("macvlan", lambda found: of_a_host(found, "macvlan", "mode", "bridge"), "lo, made0, s1"),
    place("ipvlan", lambda found: of_a_host(found, "ipvlan", "mode", "l2"), "lo, made0, s1"),
]


def need_device(found: Network, kind: str) -> None:
    """See that this kernel knows such devices."""
    options = {"vlan": ["id", "9"], "vxlan": ["id", "9", "dstport", "4790"]}.get(kind, [])
    try:
        ip(found.peer, "link", "add", "link", "p0", "name", "try0", "type", kind, *options)
    except RuntimeError as error:
        if "Unknown device type" not in str(error):
            raise
        pytest.skip(f"{NO_KERNEL} {kind} devices")
    ip(found.peer, "link", "del", "try0")


@FAMILIES
@pytest.mark.parametrize("place", PLACES)
def test_the_kernel_carries_there(three: Network, place: Place, ipv6: bool):
    need_device(three, place.kind)
    with place.make(three) as found, staged(found, ipv6=ipv6) as stage:
        assert stage.relay.service.plane_reason == place.devices
        is_served(stage)


def test_what_comes_by_another_vlan_is_no_packet_of_the_client(three: Network):
    """Same addresses, same channel, but not the way that the client would be reached by."""
    need_device(three, "vlan")
    with vlan(three) as found, staged(found) as stage:
        before = stage.carried()
        with three.client.wire() as untagged:
            wire = stage.from_client
            good = frames.ip(wire, frames.udp(wire, channel_data(body(60))))
            untagged.send(good)
            untagged.send(frames.tagged(good, 8))
        stage.collect()
        assert stage.carried() == before
        assert is_carried(stage)


def is_up(host: Host) -> bool:
    return "state UP" in host.run("ip", "link", "show", host.device)


def test_clients_at_two_devices(three: Network):
    """Each is carried by its own; what comes by the other's is none of its packets."""
    client, server = moved(three.client, "c2", 3), moved(three.server, "s2", 3)
    cable((client.namespace, "c2"), (server.namespace, "s2"))
    address(client)
    address(server)
    for host in (client, server):  # a cable carries nothing until both ends know of each other
        wait_until(partial(is_up, host))
    try:
        listen = [f"{three.server.ipv4}:3478", f"{server.ipv4}:3478"]
        with relay(three, "kernel", listen=listen) as running:
            assert running.service.plane_reason == "at lo, s0, s1, s2"
            first = Stage(three, running)
            second = Stage(
                three._replace(client=client, server=server), running, port=PEER_PORT + 1
            )
            try:
                for stage in (first, second):
                    stage.warm_up()
                    is_served(stage)
                before = first.carried()
                with client.wire() as other:  # the first client's address, at the second's device
                    wire = first.from_client._replace(
                        source_mac=client.mac(), destination_mac=server.mac()
                    )
                    other.send(frames.ip(wire, frames.udp(wire, channel_data(body(60)))))
                second.collect()
                assert first.carried() == before
            finally:
                first.close()
                second.close()
    finally:
        ip(server, "link", "del", "s2")


# In a container ------------------------------------------------------------------------------

RULES = """
table ip published {{
    chain in {{
        type nat hook prerouting priority dstnat;
        ip daddr {{ {sides} }} udp dport {{ 3478, 49152-65535 }} dnat to {container}
    }}
    chain out {{
        type nat hook postrouting priority srcnat;
        ip saddr {container} oifname "h1" snat to {outer}
    }}
}}
"""


@contextmanager
def container(prefix: str) -> Iterator[Network]:
    """A relay that lives behind a bridge of a host, which publishes its ports."""
    host = Host(f"{prefix}-host", "br0", "10.92.5.1", "fd92:5::1")
    found = Network(
        Host(f"{prefix}-client", "c0", "10.92.1.2", "fd92:1::2"),
        Host(f"{prefix}-container", "eth0", "10.92.5.2", "fd92:5::2"),
        Host(f"{prefix}-container", "eth0", "10.92.5.2", "fd92:5::2"),
        Host(f"{prefix}-peer", "p0", "10.92.2.2", "fd92:2::2"),
    )
    sides = (
        host._replace(device="h0", ipv4="10.92.1.1", ipv6="fd92:1::1"),
        host._replace(device="h1", ipv4="10.92.2.1", ipv6="fd92:2::1"),
    )
    with namespaces([host.namespace, *(one.namespace for one in found)]):
        cable((found.server.namespace, "eth0"), (host.namespace, "port0"))
        cable((found.client.namespace, "c0"), (host.namespace, "h0"))
        cable((found.peer.namespace, "p0"), (host.namespace, "h1"))
        ip(host, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        ip(host, "link", "set", "port0", "master", "br0", "up")
        for one in (host, *sides, found.client, found.server, found.peer):
            address(one)
        for one, gateway in zip(
            (found.client, found.peer, found.server), (*sides, host), strict=True
        ):
            ip(one, "route", "add", "default", "via", gateway.ipv4)
        set_kernel(host.namespace, {"net/ipv4/ip_forward": "1"})
        rules = RULES.format(
            sides=", ".join(side.ipv4 for side in sides),
            outer=sides[1].ipv4,
            container=found.server.ipv4,
        )
        run("ip", "netns", "exec", host.namespace, "nft", "-f", "-", given=rules)
        yield found


def test_in_a_container_whose_host_publishes_its_ports(need, need_kernel: None):
    need("nft")
    published = {
        "listen": ["10.92.5.2:3478"],
        "relay_addresses": ["10.92.5.2"],
        "external_addresses": ["10.92.2.1/10.92.5.2"],
    }
    with container(f"ic{os.getpid()}") as found, relay(found, "kernel", **published) as running:
        outside = found._replace(server=found.server._replace(ipv4="10.92.1.1"))
        stage = Stage(outside, running)
        try:
            assert stage.relayed.host == "10.92.2.1"
            stage.warm_up()
            is_served(stage)
        finally:
            stage.close()


def test_in_a_container_of_a_user_who_is_not_root_user_space_carries(need_kernel, tmp_path: Path):
    """Root there has every right, but not over this kernel."""
    file = tmp_path / "icebroker.toml"
    file.write_text(
        '[turn]\nlisten = ["127.0.0.1:0"]\n[turn.users]\nu = "p"\n'
        '[admin]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n'
    )
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c"]
    command = f"ip link set lo up && exec {sys.executable} -m icebroker turn -c {file}"
    with subprocess.Popen(
        [*unshare, command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if '"data plane"' in line)
        process.terminate()
        process.communicate(timeout=30)
    assert '"plane": "userspace"' in line
    assert "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in line
