"""``python -m tests.bench.half_open``: how long an honest client waits for its Allocate.

Alone, and beside 5,000 half-open TCP and TLS connections: 50th and 99th percentile of what passes
from the first byte to the relayed address, the 401 and the handshake with it.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.interop.process import relay
from tests.threats.half_open import HALF_A_REQUEST, half_a_hello, open_half, room_for
from tests.turn.live import UDP, Client
from tests.turn.secure import TlsClient
from turn.auth.credentials import long_term_key
from turn.codec import registry
from turn.codec.registry import MessageClass, Method

EACH = 2500
ALLOCATES = 300
LIMITS: dict[str, Any] = {
    "first_request_timeout": 60,
    "max_allocations_per_address": 0,
    "max_unproved_replies_per_second": 100_000,
    "max_unauthenticated_per_address": 1000,
    "max_tls_handshakes_per_second": 100_000,
}


async def allocate(kind: str, ports: dict[str, int]) -> float:
    """Seconds that one Allocate takes."""
    client = TlsClient() if kind == "TLS" else Client()
    client.key = long_term_key("alice", "icebroker", "secretpw")
    begin = time.perf_counter()
    await client.connect(ports[kind], tcp=kind == "TCP")
    reply = await client.request(Method.ALLOCATE, UDP)
    took = time.perf_counter() - begin
    assert reply.message_class == MessageClass.SUCCESS
    await client.request(Method.REFRESH, (registry.LIFETIME, 0))
    client.close()
    return took


async def measure(ports: dict[str, int], where: str) -> None:
    """Print a line for each transport."""
    for kind in ports:
        took = [1000 * await allocate(kind, ports) for _ in range(ALLOCATES)]
        p99 = statistics.quantiles(took, n=100)[98]
        print(f"{where:28}{kind:6}p50 {statistics.median(took):7.1f} ms   p99 {p99:7.1f} ms")


async def run(ports: dict[str, int]) -> None:
    """Both measurements in one run."""
    await measure(ports, "alone")
    held = await open_half(ports["TCP"], EACH, HALF_A_REQUEST, 21)
    held += await open_half(ports["TLS"], EACH, half_a_hello(), 22)
    await measure(ports, f"beside {len(held)} half-open")
    for sock in held:
        sock.close()


def main() -> None:
    """Run a relay and measure."""
    room_for(2 * EACH + 500)
    with tempfile.TemporaryDirectory() as folder, relay(Path(folder), **LIMITS) as found:
        asyncio.run(run({"UDP": found.port, "TCP": found.port, "TLS": found.tls_port}))


if __name__ == "__main__":
    main()
