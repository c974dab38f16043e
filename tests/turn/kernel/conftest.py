"""What the tests of the kernel plane stand on: three hosts, made once a module."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.turn.kernel.hosts import Network, be_driver_like, network, offloads
from tests.turn.kernel.restarts import bpffs


@pytest.fixture(scope="module", name="need_kernel")
def need_kernel_fixture(request):
    """See that namespaces and BPF can be had."""
    from tests.conftest import need, need_root  # noqa: PLC0415 - pytest loads that file its own way

    need_root("network namespaces and BPF")
    for program in ("ip", "ethtool"):
        need(program)


@pytest.fixture(scope="module", name="three")
def three_hosts(need_kernel):
    """A client, a server and a peer."""
    with network() as found:
        yield found


@pytest.fixture(name="folder")
def folder_fixture(need_kernel: None, tmp_path: Path) -> Iterator[Path]:
    """Where a process has its files, and its bpffs in ``bpf``."""
    with bpffs(tmp_path / "bpf"):
        yield tmp_path


@pytest.fixture(name="cards")
def cards_fixture(driver_like: Network) -> Network:
    """Network cards that compute checksums before they send."""
    offloads(driver_like, client=False, segmentation=False)
    return driver_like


@pytest.fixture(name="driver_like", scope="module")
def driver_like_fixture(three: Network) -> Iterator[Network]:
    """The three hosts, their devices like network cards as far as a veth can be."""
    be_driver_like(three)
    # Frames are received by the processor that sent them, so all of this test is on one: what
    # one processor does is done in order.
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    yield three
    os.sched_setaffinity(0, processors)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch):
    """Have a route go to the kernel as soon as it is worth it: there are many to wait for."""
    monkeypatch.setattr("turn.kernel.carrier.LOOK", 0.02)
