"""aioice as the client: two agents that may use nothing but the relay."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aioice
import pytest

from tests.interop.process import Relay, relay
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """One relay for all."""
    with relay(tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture
def trust(server: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let TLS clients trust the relay's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))


def agent(server: Relay, transport: str, *, controlling: bool) -> aioice.Connection:
    options: dict[str, Any] = {"turn_transport": "tcp", "turn_ssl": True}
    if transport != "tls":
        options = {"turn_transport": transport}
    return aioice.Connection(
        ice_controlling=controlling,
        components=1,
        turn_server=("127.0.0.1", server.tls_port if transport == "tls" else server.port),
        turn_username="alice",
        turn_password="secretpw",
        transport_policy=aioice.TransportPolicy.RELAY,
        **options,
    )


async def connect(one: aioice.Connection, two: aioice.Connection) -> None:
    """Tell two agents of each other's candidates, and have them connect."""
    for here, there in ((one, two), (two, one)):
        for candidate in there.local_candidates:
            await here.add_remote_candidate(candidate)
        await here.add_remote_candidate(None)
        here.remote_username, here.remote_password = there.local_username, there.local_password
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(one.connect(), two.connect())


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
@pytest.mark.usefixtures("trust")
async def test_two_agents_meet_through_the_relay(server: Relay, transport: str) -> None:
    before = server.metrics()
    one = agent(server, transport, controlling=True)
    two = agent(server, transport, controlling=False)
    await one.gather_candidates()
    await two.gather_candidates()
    assert {c.type for c in (*one.local_candidates, *two.local_candidates)} == {"relay"}
    await connect(one, two)
    for number in range(50):
        message = f"message {number}".encode() * 20
        await one.send(message)
        assert await asyncio.wait_for(two.recv(), PATIENCE) == message
        await two.send(message[::-1])
        assert await asyncio.wait_for(one.recv(), PATIENCE) == message[::-1]
    name = f'icebroker_turn_allocations_created_total{{family="ipv4",transport="{transport}"}}'
    assert server.metrics()[name] == before.get(name, 0) + 2
    await one.close()
    await two.close()
