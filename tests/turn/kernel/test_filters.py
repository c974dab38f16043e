"""Kernels before 6.6: the program is attached as a filter of tc."""

import errno
import subprocess
from collections.abc import Iterator

import pytest

from tests.turn.kernel.hosts import Network, relay
from tests.turn.kernel.script import Stage, body
from turn.kernel.bpf import BpfError


def refuse_tcx(_: int, __: int) -> int:
    raise BpfError(errno.EINVAL, "attaching by tcx: Invalid argument")


@pytest.fixture(name="old_kernel")
def old_kernel_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turn.kernel.devices.attach_tcx", refuse_tcx)


def filters(three: Network, device: str = "s0") -> str:
    shown = ["tc", "filter", "show", "dev", device, "ingress"]
    return three.server.run(*shown)


@pytest.fixture(name="other")
def other_filter(three: Network) -> Iterator[str]:
    """Somebody else's filter on the same device."""
    ours = ["tc", "-n", three.server.namespace]
    subprocess.run([*ours, "qdisc", "replace", "dev", "s0", "clsact"], check=True)
    match = ["bpf", "bytecode", "1,6 0 0 0"]
    add = [*ours, "filter", "add", "dev", "s0", "ingress", "pref", "70", *match]
    subprocess.run(add, check=True)
    yield "pref 70 bpf"
    subprocess.run([*ours, "qdisc", "del", "dev", "s0", "clsact"], check=True)


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_a_filter_carries_as_well(three: Network, old_kernel: None, ipv6: bool):
    with relay(three, "kernel") as running:
        stage = Stage(three, running, ipv6=ipv6)
        stage.warm_up()
        before = stage.carried()
        for size in (4, 172, 1200):
            stage.send(body(size))
            stage.answer(body(size))
        stage.collect()
        assert stage.carried() == before + 6
        assert "icebroker" in filters(three)
        stage.close()
    assert filters(three) == ""


def test_others_filters_are_left_alone(three: Network, old_kernel: None, other: str):
    with relay(three, "kernel"):
        assert other in filters(three)
        assert "icebroker" in filters(three)
    assert other in filters(three)
    assert "icebroker" not in filters(three)


def leave_a_filter(three: Network) -> None:
    """As a process on an old kernel does that is killed."""
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr("turn.kernel.devices.attach_tcx", refuse_tcx)
        killed.setattr("turn.kernel.filters.detach", lambda *_: None)
        with relay(three, "kernel"):
            pass
    assert filters(three).count("handle 0x1 icebroker") == 1


def test_what_a_killed_process_left_is_replaced(three: Network, old_kernel: None):
    leave_a_filter(three)
    with relay(three, "kernel"):
        assert filters(three).count("handle 0x1 icebroker") == 1
    assert filters(three) == ""


def test_a_newer_kernel_takes_the_filter_away(three: Network):
    leave_a_filter(three)
    with relay(three, "kernel"):
        assert "icebroker" not in filters(three)
