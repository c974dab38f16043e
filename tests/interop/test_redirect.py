"""coturn's client is sent to another relay, and has its call there (RFC 8489 §10)."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import need
from tests.interop.process import free_port, relay, running
from tests.interop.test_uclient import USER, all_came_back


@pytest.mark.parametrize("over", [[], ["-t"]], ids=["udp", "tcp"])
def test_the_call_is_at_the_other_relay(tmp_path: Path, over: list[str]) -> None:
    uclient, peer_port = need("turnutils_uclient"), free_port()
    folders = tmp_path / "there", tmp_path / "here"
    for folder in folders:
        folder.mkdir()
    with (
        running("turnutils_peer", "-p", str(peer_port), "-L", "127.0.0.1"),
        relay(folders[0]) as there,
        relay(folders[1], alternate_servers=[f"127.0.0.1:{there.port}"], redirect="always") as here,
    ):
        command = [uclient, *over, *USER, "-p", str(here.port), "-r", str(peer_port)]
        done = subprocess.run(
            [*command, "-e", "127.0.0.1", "127.0.0.1"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert all_came_back(done.stdout), done.stdout + done.stderr
        sent_away = 'icebroker_stun_responses_total{code="300",method="allocate"}'
        assert here.metrics()[sent_away] >= 1
        relayed = 'icebroker_turn_relay_packets_total{direction="to_peer",plane="userspace"}'
        kernel = relayed.replace("userspace", "kernel")
        assert here.metrics()[relayed] == 0
        assert there.metrics()[relayed] + there.metrics()[kernel] > 0
