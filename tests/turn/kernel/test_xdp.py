"""XDP: the same script of packets, where it may be used, and who says so."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.namespaces import run
from tests.patience import wait_until
from tests.turn.kernel.frames import tagged
from tests.turn.kernel.hosts import Host, Network, offloads, relay
from tests.turn.kernel.indications import IndicationStage, of_indications
from tests.turn.kernel.restarts import Call, Process, bpffs
from tests.turn.kernel.script import (
    IPV4_ONLY,
    IPV6_ONLY,
    Stage,
    body,
    channel_data,
    framed,
    of_both_families,
    spoiled,
)
from tests.turn.kernel.test_equal import CHECKSUMS, FAMILIES, compare
from turn.codec import registry
from turn.codec.registry import Method
from turn.kernel import bpf
from turn.kernel.program import FRAMES, load


@FAMILIES
@CHECKSUMS
def test_xdp_does_the_same_as_user_space(cards: Network, ipv6: bool, partial: bool):
    offloads(cards, client=partial, segmentation=partial)
    # Several packets in one do not come by a device with XDP: they are taken apart before.
    cases = of_both_families(40 if ipv6 else 20, segmentation=False)
    cases += (IPV6_ONLY if ipv6 else IPV4_ONLY) + spoiled(ipv6=ipv6)
    got = compare(cards, cases, Stage, ipv6=ipv6, hook="xdp")
    for name, played in got.items():
        if not partial:
            assert played.by_xdp == played.carried, name


@FAMILIES
@CHECKSUMS
def test_xdp_does_the_same_to_indications(cards: Network, ipv6: bool, partial: bool):
    offloads(cards, client=partial, segmentation=partial)
    got = compare(cards, of_indications(ipv6=ipv6), IndicationStage, ipv6=ipv6, hook="xdp")
    for name, played in got.items():
        if not partial:
            assert played.by_xdp == played.carried, name


@contextmanager
def staged(found: Network, hook: str = "xdp") -> Iterator[Stage]:
    """A call that the kernel carries."""
    with relay(found, "kernel", kernel_hook=hook) as running:
        stage = Stage(found, running)
        try:
            stage.warm_up()
            yield stage
        finally:
            stage.close()


def carried(stage: Stage) -> tuple[int, int]:
    """How many of a packet each way the kernel carries, and how many of these by XDP."""
    before, frames = stage.carried(), stage.by_xdp()
    stage.send(body(100))
    stage.answer(body(100))
    assert stage.collect() == ([(body(100), True)], [channel_data(body(100))])
    return stage.carried() - before, stage.by_xdp() - frames


def where(stage: Stage) -> str:
    """Where the plane says that it works."""
    return stage.relay.service.plane_reason


def test_nothing_passes_after_the_end(cards: Network):
    with staged(cards) as stage:
        assert carried(stage) == (2, 2)
        before = stage.carried()
        stage.client.sock.setblocking(False)
        stage.client.do(stage.client.request(Method.REFRESH, (registry.LIFETIME, 0)))
        for sock in (stage.client.sock, stage.peer):
            sock.settimeout(0.1)
        for _ in range(20):
            stage.send(body(50))
            stage.answer(body(50))
        for sock in (stage.client.sock, stage.peer):
            with pytest.raises((TimeoutError, ConnectionRefusedError)):
                sock.recv(2048)
        assert stage.carried() == before


@pytest.mark.parametrize("hook", ["auto", "tc"])
def test_virtual_devices_and_unwilling_operators_get_tc(
    cards: Network, hook: str, capsys: pytest.CaptureFixture[str]
):
    with staged(cards, hook) as stage:
        assert where(stage) == "at lo, s0, s1"
        assert carried(stage) == (2, 0)
    said = capsys.readouterr().out
    assert ("a virtual device (veth) is faster" if hook == "auto" else "as configured") in said


def test_a_device_that_hides_vlans_gets_tc(cards: Network, capsys: pytest.CaptureFixture[str]):
    """Its frames have lost their tags: what is another network's would be taken for ours."""
    cards.server.run("ethtool", "-K", "s0", "rxvlan", "on")
    try:
        with staged(cards) as stage:
            assert where(stage) == "at lo, s0, s1 (XDP)"
            assert carried(stage) == (2, 0)
            cards.server.run("ethtool", "-K", "s0", "rxvlan", "off")
            wait_until(lambda: where(stage) == "at lo, s0 (XDP), s1 (XDP)")
            assert carried(stage) == (2, 2)
            before = stage.carried()
            stage.send_frames(tagged(framed(stage, channel_data(body(60))), 7))
            assert stage.collect() == ([], [])
            assert stage.carried() == before
    finally:
        cards.server.run("ethtool", "-K", "s0", "rxvlan", "off")
    assert "hides the VLAN" in capsys.readouterr().out


def test_a_driver_that_takes_no_frames_gets_tc(
    cards: Network, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    cards.client.run("ethtool", "-K", "c0", "gro", "off")
    try:
        with staged(cards) as stage:
            assert where(stage) == "at lo, s0, s1 (XDP)"
            assert carried(stage) == (2, 0)
        assert "its driver cannot send others' frames" in capsys.readouterr().out
        # And one that says that it does, but does not.
        monkeypatch.setattr("turn.kernel.drivers.lacking", lambda *_, **__: None)
        with staged(cards) as stage:
            assert where(stage) == "at lo, s0, s1 (XDP)"
            assert carried(stage) == (2, 0)
        assert "its driver drops what it is to send" in capsys.readouterr().out
    finally:
        cards.client.run("ethtool", "-K", "c0", "gro", "on")


def test_a_device_with_another_program_gets_tc(cards: Network, others: Host):
    with staged(cards) as stage:
        assert where(stage) == "at lo, s0, s1 (XDP)"
        assert carried(stage) == (2, 0)


@pytest.fixture(name="others")
def others_fixture(cards: Network) -> Iterator[Host]:
    """Somebody else's program in a driver of the server's; it passes everything on."""
    program = load(None, FRAMES)
    with cards.server.inside():
        link = bpf.attach_xdp(program.fd, socket.if_nametoindex("s0"))
    yield cards.server
    os.close(link)
    program.close()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGUSR1], ids=["crash", "restart"])
def test_frames_go_on_through_a_restart(cards: Network, tmp_path: Path, end: signal.Signals):
    hook = ("env", "ICEBROKER_TURN__KERNEL_HOOK=xdp")
    with bpffs(tmp_path / "bpf"):
        process = Process(cards, tmp_path)
        try:
            process.start(*hook)
            call = Call(cards)
            call.begin()
            process.end(end)
            for _ in range(20):  # no more at once than a veth's ring holds
                call.step()
                call.wait(lambda: not call.missing)
            process.start(*hook)
            call.ask(Method.REFRESH, calling=True)
            call.wait(lambda: not call.missing)
            call.close()
            assert process.log.count("at lo, s0 (XDP), s1 (XDP), kept") == 2
        finally:
            process.stop()
    for device in ("s0", "s1"):
        assert "xdp" not in run("ip", "-n", cards.server.namespace, "link", "show", device)


def test_the_next_process_may_be_told_otherwise(cards: Network, tmp_path: Path):
    with bpffs(tmp_path / "bpf"):
        process = Process(cards, tmp_path)
        try:
            process.start("env", "ICEBROKER_TURN__KERNEL_HOOK=xdp")
            call = Call(cards)
            call.begin()
            process.end(signal.SIGKILL)
            process.start()
            call.ask(Method.REFRESH, calling=True)
            call.wait(lambda: not call.missing)
            call.close()
            assert "at lo, s0, s1, kept" in process.log
        finally:
            process.stop()
