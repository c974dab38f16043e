"""``turn.data_plane``: what is asked for is what there is, and a word why not."""

import subprocess
import sys
from pathlib import Path

import pytest

from config.section import StartError
from tests.patience import PATIENCE
from tests.turn.kernel.hosts import relay
from tests.turn.live import relay as relay_on_loopback

ROOT = Path(__file__).parents[3]


def with_rights(*rights):
    """Runs a command as a root that may do these things only."""
    bounds = ",".join(["-all", *(f"+{right}" for right in rights)])
    return ["setpriv", f"--bounding-set={bounds}", "--inh-caps=-all"]


async def test_userspace_never_tries(monkeypatch):
    def load(_):
        raise AssertionError("it tried")

    monkeypatch.setattr("turn.kernel.loader.load", load)
    async with relay_on_loopback(data_plane="userspace") as service:
        assert service.plane == "userspace"
        assert service.plane_reason == "as configured"


@pytest.mark.parametrize("plane", ["auto", "kernel"])
def test_the_kernel_carries_where_it_can(three, plane):
    with relay(three, plane) as running:
        assert running.service.plane == "kernel"
        assert running.service.plane_reason == "at lo, s0, s1"


def test_nothing_is_left_behind(three):
    with relay(three, "kernel"):
        pass
    left = three.server.run("tc", "filter", "show", "dev", "s0", "ingress")
    assert left == ""


def run_with_rights(tmp_path, plane, *rights):
    return run_within(tmp_path, plane, *with_rights(*rights))


def run_within(tmp_path, plane, *wrapper):
    file = tmp_path / "icebroker.toml"
    file.write_text(
        f'[turn]\nlisten = ["127.0.0.1:0"]\ndata_plane = "{plane}"\n[turn.users]\nu = "p"\n'
        '[admin]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n'
    )
    return subprocess.Popen(
        [*wrapper, sys.executable, "-m", "icebroker", "turn", "-c", str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_without_rights_user_space_carries_and_says_why(need_kernel, tmp_path):
    process = run_with_rights(tmp_path, "auto")
    line = next(line for line in process.stdout if '"data plane"' in line)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert '"plane": "userspace"' in line
    assert "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in line


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("EPERM", "are there, but bpf(2) is refused: by the seccomp profile or the user namespace"),
        ("ENOSYS", "there is no bpf(2)"),
    ],
)
def test_with_all_rights_it_says_what_else_refuses(need_kernel, tmp_path, error, why):
    wrapper = [sys.executable, "-m", "tests.turn.kernel.without_bpf", error]
    process = run_within(tmp_path, "auto", *wrapper)
    line = next(line for line in process.stdout if '"data plane"' in line)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert '"plane": "userspace"' in line
    assert why in line
    output, _ = run_within(tmp_path, "kernel", *wrapper).communicate(timeout=PATIENCE)
    assert "turn.data_plane" in output
    assert why in output


def test_three_rights_are_enough(need_kernel, tmp_path):
    process = run_with_rights(tmp_path, "kernel", "bpf", "perfmon", "net_admin")
    line = next(line for line in process.stdout if '"data plane"' in line)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert '"plane": "kernel"' in line


def test_without_rights_the_kernel_plane_is_no_start(need_kernel, tmp_path):
    output, _ = run_with_rights(tmp_path, "kernel").communicate(timeout=PATIENCE)
    assert "turn.data_plane" in output
    assert "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN" in output
    assert "Traceback" not in output


async def test_a_kernel_that_refuses_is_named(monkeypatch):
    def load(_):
        raise OSError(1, "loading the program icebroker: Operation not permitted")

    monkeypatch.setattr("turn.kernel.loader.load", load)
    with pytest.raises(StartError, match=r"data_plane.*CAP_BPF"):
        async with relay_on_loopback(data_plane="kernel"):
            pass
