"""coturn's test client against a relay of two processes: it must not notice them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.interop import uclient
from tests.interop.uclient import THIRD_PARTY, all_came_back

WANTED = (
    "udp", "udp-many", "udp-pair", "udp-pair-send", "udp-large", "tcp-pair", "tls", "tls-pair",
    "dtls-pair", "ipv6-pair", "ipv6-relay", "secret-tcp", "mobility", "mobility-tcp",
    "rfc6062-many", "rfc6062-tls", "rfc6062-ipv6", "rfc6062-mobility",
    "rfc6062-third-party", "rfc6062-third-party-tls",
)  # fmt: skip


def test_every_message_comes_back_and_both_workers_serve(tmp_path: Path) -> None:
    most = [0.0, 0.0]
    with uclient.bench(tmp_path, workers=2, tcp_allocations=True, **THIRD_PARTY) as bench:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(bench.at_once, WANTED, len(WANTED))
            while not running.done():
                metrics = bench.server.metrics()
                for number in (0, 1):
                    live = metrics[f'icebroker_turn_worker_allocations{{worker="{number}"}}']
                    most[number] = max(most[number], live)
                time.sleep(0.2)
        for name, output in running.result().items():
            assert all_came_back(output), f"{name}:\n{output}"
        assert min(most) >= 5
        restarts = [f'icebroker_turn_worker_restarts_total{{worker="{n}"}}' for n in (0, 1)]
        assert [bench.server.metrics()[name] for name in restarts] == [0, 0]
