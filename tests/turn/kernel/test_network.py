"""What the machine's network may be like, and what may happen to it while a call goes on."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from tests.namespaces import run
from tests.patience import PATIENCE, wait_until
from tests.turn.kernel.hosts import Host, Network, Relay, relay
from tests.turn.kernel.script import CHANNEL, PEER_PORT, Stage, body, channel_data
from turn.kernel.carrier import WORTH


@pytest.fixture(name="stage", params=[False, True], ids=["IPv4", "IPv6"])
def stage_fixture(three: Network, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(three, ipv6=request.param) as stage:
        yield stage


@contextmanager
def staged(found: Network, *, ipv6: bool = False) -> Iterator[Stage]:
    """A call on a network that the kernel carries."""
    with relay(found, "kernel", allow_peers=["10.92.0.0/16", "fd92::/16"]) as running:
        stage = Stage(found, running, ipv6=ipv6)
        try:
            stage.warm_up()
            carried_again(stage)
            yield stage
        finally:
            stage.close()


def goes_through(stage: Stage, size: int = 100) -> bool:
    """Whether a packet each way arrives."""
    for sock in (stage.peer, stage.client.sock):
        sock.settimeout(0.2)
    arrived = False
    with suppress(OSError):  # late, or the kernel has no way there for a moment
        stage.send(body(size))
        stage.answer(body(size))
        arrived = stage.peer.recv(2048) == body(size) and stage.payload_of(
            stage.client.sock.recv(2048)
        ) == body(size)
    if not arrived:
        drain(stage)
    return arrived


def drain(stage: Stage) -> None:
    """Take what comes late."""
    for sock in (stage.peer, stage.client.sock):
        sock.settimeout(0.05)
        try:
            while sock.recv(2048):
                pass
        except OSError:
            pass


def carried_again(stage: Stage) -> None:
    """Packets get through, and soon by the kernel again."""
    wait_until(lambda: goes_through(stage) and is_carried(stage))


def is_carried(stage: Stage) -> bool:
    before = stage.carried()
    return goes_through(stage) and stage.carried() == before + 2


def ip(host: Host, *words: str) -> None:
    run("ip", "-n", host.namespace, *words)


def ips(host: Host, *words: str) -> bool:
    """The same, which may not work yet."""
    try:
        ip(host, *words)
    except RuntimeError:
        return False
    return True


def test_a_neighbour_gets_another_network_card(stage: Stage):
    network = stage.network
    peer, old = network.peer, network.peer.mac().hex(":")
    new = "02:00:00:00:00:77"
    host = peer.ipv6 if stage.is_ipv6 else peer.ipv4
    try:
        ip(peer, "link", "set", peer.device, "address", new)
        learned = ("lladdr", new, "nud", "reachable", "dev", network.inner.device)
        ip(network.inner, "neigh", "replace", host, *learned)
        carried_again(stage)
    finally:
        ip(peer, "link", "set", peer.device, "address", old)
        ip(network.inner, "neigh", "flush", "dev", network.inner.device)


def test_a_neighbour_is_forgotten_and_found_again(stage: Stage):
    inner = stage.network.inner
    ip(inner, "neigh", "flush", "dev", inner.device)
    carried_again(stage)


def test_a_cable_is_pulled_and_plugged_in_again(stage: Stage):
    peer = stage.network.peer
    ip(peer, "link", "set", peer.device, "down")
    assert not goes_through(stage)
    ip(peer, "link", "set", peer.device, "up")
    for host in (peer, stage.network.inner):  # a device that goes down loses these
        ip(host, "addr", "replace", f"{host.ipv6}/64", "dev", host.device, "nodad")
    for family, via in (("-4", stage.network.inner.ipv4), ("-6", stage.network.inner.ipv6)):
        wait_until(partial(ips, peer, family, "route", "replace", "default", "via", via))
    carried_again(stage)


def test_a_path_becomes_narrower(stage: Stage):
    inner = stage.network.inner
    assert large_is_carried(stage)
    try:
        ip(inner, "link", "set", inner.device, "mtu", "1280")
        wait_until(lambda: not large_is_carried(stage))  # but in fragments, by user space
        carried_again(stage)
    finally:
        ip(inner, "link", "set", inner.device, "mtu", "1500")


def large_is_carried(stage: Stage) -> bool:
    """Whether the kernel carries a large packet to the peer; it arrives in any case."""
    before = stage.carried()
    stage.peer.settimeout(PATIENCE)
    stage.send(body(1300))
    assert stage.peer.recv(2048) == body(1300)
    return stage.carried() == before + 1


def test_the_way_to_the_peer_changes(three: Network, stage: Stage):
    """Another router, the peer itself by another of its addresses."""
    peer, inner = three.peer, three.inner
    second = "fd92:2::9" if stage.is_ipv6 else "10.92.2.9"
    length = "64" if stage.is_ipv6 else "24"
    host = peer.ipv6 if stage.is_ipv6 else peer.ipv4
    far = f"{host}/{'128' if stage.is_ipv6 else '32'}"
    ip(peer, "addr", "add", f"{second}/{length}", "dev", peer.device, "nodad")
    try:
        ip(inner, "route", "add", far, "via", second, "dev", inner.device)
        carried_again(stage)
        ip(inner, "route", "del", far)
        carried_again(stage)
    finally:
        ip(peer, "addr", "del", f"{second}/{length}", "dev", peer.device)


def test_a_device_that_comes_is_one_of_ours(three: Network, stage: Stage):
    plane = stage.relay.service._plane
    ip(three.server, "link", "add", "late0", "type", "veth", "peer", "name", "late1")
    try:
        ip(three.server, "addr", "add", "10.92.9.1/24", "dev", "late0")
        ip(three.server, "link", "set", "late0", "up")
        wait_until(lambda: "late0" in stage.relay.call(lambda: plane.reason))
    finally:
        ip(three.server, "link", "del", "late0")
    wait_until(lambda: "late0" not in stage.relay.call(lambda: plane.reason))
    assert is_carried(stage)


@contextmanager
def bridge(found: Network) -> Iterator[Network]:
    """The same network, but the server's device to the client is a port of a bridge."""
    port = found.server
    made = port._replace(device="br0", ipv4="10.92.8.1", ipv6="fd92:8::1")
    client = found.client._replace(ipv4="10.92.8.2", ipv6="fd92:8::2")
    ip(port, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
    ip(port, "addr", "flush", "dev", port.device)
    ip(port, "link", "set", port.device, "master", "br0")
    address(made)
    ip(client, "addr", "add", "10.92.8.2/24", "dev", client.device)
    ip(client, "addr", "add", "fd92:8::2/64", "dev", client.device, "nodad")
    try:
        yield found._replace(client=client, server=made)
    finally:
        ip(port, "link", "del", "br0")
        ip(client, "addr", "del", "10.92.8.2/24", "dev", client.device)
        ip(client, "addr", "del", "fd92:8::2/64", "dev", client.device)
        address(port)


def address(host: Host) -> None:
    """Give a host its addresses, and set its device up."""
    ip(host, "addr", "add", f"{host.ipv4}/24", "dev", host.device)
    ip(host, "addr", "add", f"{host.ipv6}/64", "dev", host.device, "nodad")
    ip(host, "link", "set", host.device, "up")


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_port_of_a_bridge(three: Network, ipv6: bool):
    with bridge(three) as found, staged(found, ipv6=ipv6) as stage:
        assert stage.relay.service.plane_reason == "at br0, lo, s1"
        for size in (4, 63, 1200, 1400):
            before = stage.carried()
            assert goes_through(stage, size)
            assert stage.carried() == before + 2


def test_behind_nat_two_clients_meet_by_their_public_addresses(three: Network):
    public = "203.0.113.7"
    with relay(
        three, "kernel", listen=[f"{three.server.ipv4}:3478"],
        relay_addresses=[three.inner.ipv4], external_addresses=[f"{public}/{three.inner.ipv4}"],
    ) as running:  # fmt: skip
        pair = [Stage(three, running, port=port) for port in (PEER_PORT, PEER_PORT + 1)]
        assert [stage.relayed.host for stage in pair] == [public, public]
        for stage, other in (pair, pair[::-1]):
            stage.client.sock.setblocking(False)
            stage.client.do(stage.bind(CHANNEL + 1, other.relayed))
            stage.client.sock.settimeout(PATIENCE)

        def talk(count: int) -> None:
            for stage, other in (pair, pair[::-1]) * count:
                stage.client.sock.send(channel_data(body(70), CHANNEL + 1))
                assert other.client.sock.recv(2048) == channel_data(body(70), CHANNEL + 1)

        talk(WORTH)
        running.settle()
        before = pair[0].carried()
        talk(4)
        assert pair[0].carried() == before + 16
        for stage in pair:
            stage.close()


def test_a_relay_with_two_faces_needs_no_forwarding(three: Network, stage: Stage):
    """The kernel plane asks no routing table, so a relay's host is no router for strangers."""
    for family in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        assert three.server.run("sysctl", "-n", f"net.{family}").strip() == "0"
    assert is_carried(stage)


def test_two_relays_share_a_machine(three: Network):
    """Each has its own ports; the program of the one passes on what is the other's."""
    with staged(three) as first:
        more = {"listen": [f"{three.server.ipv4}:3500"], "relay_ports": "50000-50100"}
        with relay(three, "kernel", **more) as second:
            assert isinstance(second, Relay)
            assert is_carried(first)
        assert is_carried(first)
