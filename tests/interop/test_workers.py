"""coturn's test client against a relay of two processes: it must not notice them."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import need
from tests.interop.process import free_port, relay, running
from tests.interop.test_uclient import LINES, Bench, all_came_back

WANTED = (
    "udp", "udp-many", "udp-pair", "udp-pair-send", "udp-large", "tcp-pair", "tls", "tls-pair",
    "dtls-pair", "ipv6-pair", "ipv6-relay", "secret-tcp", "mobility", "mobility-tcp",
)  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One relay of two workers for all lines."""
    need("turnutils_uclient")
    peer_port = free_port()
    with (
        running("turnutils_peer", "-p", str(peer_port), "-L", "127.0.0.1", "-L", "::1"),
        relay(
            tmp_path_factory.mktemp("workers"),
            workers=2,
            max_unproved_replies_per_second=1000,
            max_allocations_per_address=0,
            mobility=True,
        ) as server,
    ):
        yield Bench(server, peer_port)


def test_every_message_comes_back_and_both_workers_serve(bench: Bench) -> None:
    most = [0.0, 0.0]
    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(bench.uclient, LINES[name]) for name in WANTED]
        while not all(each.done() for each in running):
            metrics = bench.server.metrics()
            for number in (0, 1):
                live = metrics[f'icebroker_turn_worker_allocations{{worker="{number}"}}']
                most[number] = max(most[number], live)
            time.sleep(0.2)
        outputs = {name: each.result()[1] for name, each in zip(WANTED, running, strict=True)}
    # The client stops listening on time, not on the last message: one that was late on a busy
    # machine has to come when the line runs alone.
    for name in [name for name, output in outputs.items() if not all_came_back(output)]:
        output = bench.uclient(LINES[name])[1]
        assert all_came_back(output), f"{name}:\n{output}"
    assert min(most) >= 5
    restarts = [f'icebroker_turn_worker_restarts_total{{worker="{n}"}}' for n in (0, 1)]
    assert [bench.server.metrics()[name] for name in restarts] == [0, 0]
