"""The systemd unit, as systemd judges it, and the service's word to whoever supervises it."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.systemd import MARGIN, Supervisor
from tests.conftest import need
from tests.interop.process import free_port
from tests.patience import PATIENCE
from tests.shell import COMMAND, Ports, Shell

UNIT = Path(__file__).parents[2] / "deploy/systemd/icebroker@.service"
KERNEL = UNIT.with_name("icebroker-kernel.service")


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a supervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def lines(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


# The unit ------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the relay as its instance, and a command that is there."""
    made = tmp_path / "icebroker@turn.service"
    made.write_text(UNIT.read_text().replace("/opt/icebroker/bin/icebroker", "/bin/true"))
    return made


def test_the_unit_is_one_that_systemd_understands(unit: Path):
    done = subprocess.run(
        [need("systemd-analyze"), "verify", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_loaders_unit_is_one_too(tmp_path: Path):
    made = tmp_path / KERNEL.name
    made.write_text(KERNEL.read_text().replace("/opt/icebroker/bin/icebroker", "/bin/true"))
    done = subprocess.run(
        [need("systemd-analyze"), "verify", str(made)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # What it mounts has to be seen outside.
    assert not re.search(r"^(Protect|Private|ReadOnly|Inaccessible)\w+=", made.read_text(), re.M)


def test_both_units_speak_of_the_loader_as_it_is(tmp_path: Path):
    for text in (UNIT.read_text(), KERNEL.read_text()):
        for options in re.findall(r"^Exec\w+=[-+]*\S+/icebroker kernel(.*) -c \S+$", text, re.M):
            done = Shell(tmp_path).run("kernel", *options.split(), "--help")
            assert done.code == 0
    assert "icebroker kernel" in UNIT.read_text()


def test_the_relay_is_exposed_to_no_more_than_it_needs(unit: Path):
    command = [need("systemd-analyze"), "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level
    assert float(level[1]) <= 2.0
    assert done.returncode == 0


def test_the_unit_runs_a_command_that_there_is(tmp_path: Path):
    text = UNIT.read_text()
    assert re.search(r"^ExecStart=/opt/icebroker/bin/icebroker %i -c \S+$", text, re.MULTILINE)
    instances = re.findall(r"icebroker@(\w+)", text.partition("[Unit]")[0].partition("\n")[0])
    assert instances == ["serve", "turn", "signaling"]
    for service in instances:
        assert Shell(tmp_path).run(service, "--help").code == 0


def test_a_reload_with_a_mistake_fails_and_leaves_the_service_alone(
    tmp_path: Path, heard: socket.socket
):
    """The unit's ExecReload lines, one after the other until one fails, as systemd runs them."""
    shell, ports = Shell(tmp_path), Ports(free_port(), free_port(), free_port())
    variables = {**ports.variables(), "NOTIFY_SOCKET": heard.getsockname()}
    commands = re.findall(r"^ExecReload=(.+)$", UNIT.read_text(), re.M)

    def reload(pid: int) -> "subprocess.CompletedProcess[str]":
        done = subprocess.CompletedProcess([], 1, "", "there is no ExecReload=")
        for command in commands:
            line = command.replace("$MAINPID", str(pid)).replace("%i", "serve")
            words = line.replace("/opt/icebroker/bin/icebroker", str(COMMAND)).split()
            words = [str(tmp_path / "icebroker.toml") if "/etc/" in w else w for w in words]
            done = subprocess.run(
                words, env=os.environ | variables, capture_output=True, text=True, check=False
            )
            if done.returncode:
                break
        return done

    def told(text: str) -> None:
        while not any(text in line for line in lines(heard)):
            pass

    shell.write("")
    with shell.running("serve", **variables) as service:
        told("READY=1")
        shell.write("[turn]\nworkers = 0")
        refused = reload(service.process.pid)
        assert refused.returncode == 1
        assert "icebroker.toml:2: turn.workers" in refused.stderr
        shell.write("[turn]\nworkers = 2")  # good by itself, and too late for this process
        assert reload(service.process.pid).returncode == 0
        told("STATUS=serving, the last reload was refused: icebroker.toml:2: turn.workers")
        shell.write("[turn]\nmax_lifetime = 700")
        assert reload(service.process.pid).returncode == 0
        service.wait_for(lambda: "configuration reloaded" in service.log.read_text())
        told("STATUS=serving")


# The word to systemd -------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_a_supervisor_is_told_when_clients_may_come(tmp_path: Path, abstract: bool):
    name = f"@icebroker-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name.replace("@", "\0"))
        sock.settimeout(PATIENCE)
        Supervisor.of({"NOTIFY_SOCKET": name}).ready()
        assert lines(sock) == ["READY=1", "STATUS=serving"]


def test_a_drain_asks_for_the_time_that_it_may_take(heard: socket.socket):
    Supervisor.of({"NOTIFY_SOCKET": heard.getsockname()}).stopping(90)
    said = dict(line.split("=", 1) for line in lines(heard))
    assert said["STOPPING"] == "1"
    assert int(said["EXTEND_TIMEOUT_USEC"]) == (90 + MARGIN) * 1_000_000


def test_nobody_is_told_where_nobody_asked(tmp_path: Path):
    Supervisor.of({}).ready()
    Supervisor.of({"NOTIFY_SOCKET": str(tmp_path / "gone")}).stopping(1)


async def test_a_watchdog_of_another_process_is_not_fed(heard: socket.socket):
    other = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    await Supervisor.of({"NOTIFY_SOCKET": heard.getsockname(), **other}).feed()


def test_a_service_under_supervision(tmp_path: Path, heard: socket.socket):
    ports = Ports(free_port(), free_port(), free_port())
    watched = {"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "300000"}
    with Shell(tmp_path).running("serve", **ports.variables(), **watched) as service:
        said = lines(heard)
        while said == ["WATCHDOG=1"]:
            said = lines(heard)
        assert said[0] == "READY=1"
        assert [lines(heard) for _ in range(3)] == [["WATCHDOG=1"]] * 3

        service.process.send_signal(signal.SIGSTOP)  # as a loop that hangs
        heard.settimeout(1.0)
        with pytest.raises(TimeoutError):
            while True:
                lines(heard)
        service.process.send_signal(signal.SIGCONT)

        heard.settimeout(PATIENCE)
        service.process.send_signal(signal.SIGTERM)
        while said[0] != "STOPPING=1":
            said = lines(heard)
        assert service.process.wait(PATIENCE) == 0
