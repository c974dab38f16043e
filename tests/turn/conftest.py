"""Fixtures of the relay's unit tests."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.turn.live import Client, Listens, port_of
from tests.turn.world import World


@pytest.fixture
def world() -> World:
    """An engine with the default limits."""
    return World()


@pytest.fixture
def connect() -> Iterator[Any]:
    """Connects a client to a port; all are closed in the end."""
    clients: list[Client] = []

    async def connect(port: int, **how: Any) -> Client:
        clients.append(Client())
        return await clients[-1].connect(port, **how)

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client_of() -> Iterator[Any]:
    """Connects a client of this name and password to a relay; all are closed in the end."""
    clients: list[Client] = []

    async def connect(
        service: Listens, name: str = "alice", password: str = "pw", **how: Any
    ) -> Client:
        clients.append(Client(name, password))
        return await clients[-1].connect(
            port_of(service, "tcp" if how.get("tcp") else "udp"), **how
        )

    yield connect
    for client in clients:
        client.close()
