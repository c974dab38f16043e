"""Over a veth packets go straight to its far end, unless somebody wants to see them leave."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.namespaces import cable
from tests.patience import wait_until
from tests.turn.kernel.hosts import Network
from tests.turn.kernel.script import Stage
from tests.turn.kernel.test_network import carried_again, goes_through, ip, staged
from turn.kernel import bpf
from turn.kernel.cables import across
from turn.kernel.program import load
from turn.kernel.rtnetlink import Netlink


@contextmanager
def shaped(found: Network) -> Iterator[None]:
    """Packets wait in a queue, as where bandwidth is shaped."""
    found.inner.run("tc", "qdisc", "add", "dev", "s1", "root", "pfifo")
    try:
        yield
    finally:
        found.inner.run("tc", "qdisc", "del", "dev", "s1", "root")


@contextmanager
def filtered(found: Network) -> Iterator[None]:
    """A filter of tc sees what leaves."""
    found.inner.run("tc", "qdisc", "add", "dev", "s1", "clsact")
    see = ("egress", "bpf", "bytecode", "1,6 0 0 0")
    found.inner.run("tc", "filter", "add", "dev", "s1", *see)
    try:
        yield
    finally:
        found.inner.run("tc", "qdisc", "del", "dev", "s1", "clsact")


@contextmanager
def watched(found: Network) -> Iterator[None]:
    """A program of tcx does; ours, which passes on what is not for a relay."""
    program = load()
    with found.inner.inside():
        attribute = bpf.OF_LINK.pack(program.fd, socket.if_nametoindex("s1"), bpf.TCX_EGRESS, 0)
        link = bpf.call(bpf.LINK_CREATE, "attaching", attribute)
    try:
        yield
    finally:
        os.close(link)
        program.close()


OBSTACLES: list[Callable[[Network], object]] = [shaped, filtered, watched]


def sent(found: Network) -> int:
    """Packets that the server's device to the peer has sent."""
    return int(found.inner.run("cat", "/sys/class/net/s1/statistics/tx_packets"))


PACKETS = 8


def is_sent(found: Network, stage: Stage) -> bool:
    """Whether the device sends what the kernel carries to the peer.

    Some packets, since it may send one of its own meanwhile, to see that a neighbour is there.
    """
    before, carried = sent(found), stage.carried()
    for _ in range(PACKETS):
        assert goes_through(stage)
    assert stage.carried() == carried + 2 * PACKETS
    return sent(found) - before >= PACKETS


def test_packets_go_straight_to_the_far_end(three: Network):
    with staged(three) as stage:
        assert not is_sent(three, stage)


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_who_sees_packets_leave_goes_on_seeing_them(three: Network, obstacle):
    with obstacle(three), staged(three) as stage:
        assert is_sent(three, stage)


@pytest.mark.parametrize("obstacle", [shaped, filtered])
def test_and_so_does_who_comes_later(three: Network, obstacle):
    with staged(three) as stage:
        with obstacle(three):
            wait_until(lambda: is_sent(three, stage))
        wait_until(lambda: not is_sent(three, stage))
        carried_again(stage)


def test_the_far_end_has_to_be_in_another_namespace(three: Network):
    """Else the kernel would drop what it is handed so."""
    cable((three.server.namespace, "near0"), (three.server.namespace, "near1"))
    try:
        for device in ("near0", "near1"):
            ip(three.server, "link", "set", device, "up")
        with three.server.inside():
            netlink = Netlink()
            links = netlink.links()
            found = across(netlink, links)
            netlink.close()
        assert {link.name for link in links if link.device in found} == {"s0", "s1"}
    finally:
        ip(three.server, "link", "del", "near0")
