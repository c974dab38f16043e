"""HAProxy in front of the relay, with PROXY protocol v2: calls over TCP and TLS go through it."""

import contextlib
import socket
import time
from pathlib import Path

from tests.conftest import need
from tests.interop import uclient
from tests.interop.process import free_port, relay, running
from tests.patience import PATIENCE

CONFIGURATION = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen plain
    bind 127.0.0.1:{0}
    server relay 127.0.0.1:{1} send-proxy-v2 source 127.0.0.9 check inter 200
listen secure
    bind 127.0.0.1:{2}
    server relay 127.0.0.1:{3} send-proxy-v2 source 127.0.0.9
"""


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("HAProxy did not start")


def test_calls_go_through_the_load_balancer(tmp_path: Path) -> None:
    """Over TCP and over TLS."""
    haproxy, plain, secure = need("haproxy"), free_port(), free_port()
    with relay(
        tmp_path, proxy_protocol_from=["127.0.0.9/32"], max_allocations_per_address=24
    ) as server:
        file = tmp_path / "haproxy.cfg"
        file.write_text(CONFIGURATION.format(plain, server.port, secure, server.tls_port))
        with uclient.echo_peer() as peer_port, running(haproxy, "-db", "-f", str(file)):
            _wait_until_open(plain)
            calls = (
                "-t", *uclient.USER, "-r", str(peer_port), "-e", "127.0.0.1", "-m", "5",
                "127.0.0.1",
            )  # fmt: skip
            ways = [("-p", str(plain), *calls), ("-p", str(secure), "-S", *calls)]
            for output in uclient.complete_each(ways):
                assert uclient.all_came_back(output), output
        drops = server.metrics()
        assert drops['icebroker_turn_dropped_packets_total{reason="no_proxy_header"}'] == 0
