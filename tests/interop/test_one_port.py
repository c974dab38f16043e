"""coturn's client over TCP and TLS at one port, as where a firewall lets out nothing but 443."""

from pathlib import Path

import pytest

from tests.interop import uclient
from tests.interop.uclient import all_came_back

WANTED = (
    "udp", "tcp-pair", "tls", "tls-pair", "mobility-tcp", "secret-tcp",
    "secret-tls", "rfc6062-many", "rfc6062-tls",
)  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_every_message_comes_back(tmp_path: Path, workers: int) -> None:
    settings = {"one_port": True, "tcp_allocations": True, "workers": workers}
    with uclient.bench(tmp_path, **settings) as bench:
        for name, output in bench.at_once(WANTED, len(WANTED)).items():
            assert all_came_back(output), f"{name}:\n{output}"
        made = bench.server.metrics()
        for transport in ("udp", "tcp", "tls"):
            one = (
                f'icebroker_turn_allocations_created_total{{family="ipv4",transport="{transport}"}}'
            )
            assert made[one] > 0
