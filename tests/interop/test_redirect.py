"""coturn's client is sent to another relay, and has its call there (RFC 8489 §10)."""

from pathlib import Path

from tests.interop import uclient
from tests.interop.process import relay


def test_the_calls_are_at_the_other_relay(tmp_path: Path) -> None:
    """Over UDP and over TCP."""
    folders = tmp_path / "there", tmp_path / "here"
    for folder in folders:
        folder.mkdir()
    with (
        uclient.echo_peer() as peer_port,
        relay(folders[0]) as there,
        relay(folders[1], alternate_servers=[f"127.0.0.1:{there.port}"], redirect="always") as here,
    ):
        call = (
            *uclient.USER, "-p", str(here.port), "-r", str(peer_port), "-e", "127.0.0.1",
            "127.0.0.1",
        )  # fmt: skip
        for output in uclient.complete_each([call, ("-t", *call)]):
            assert uclient.all_came_back(output), output
        sent_away = 'icebroker_stun_responses_total{code="300",method="allocate"}'
        assert here.metrics()[sent_away] >= 2
        relayed = 'icebroker_turn_relay_packets_total{direction="to_peer",plane="userspace"}'
        kernel = relayed.replace("userspace", "kernel")
        assert here.metrics()[relayed] == 0
        assert there.metrics()[relayed] + there.metrics()[kernel] > 0
