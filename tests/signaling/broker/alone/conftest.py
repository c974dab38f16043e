"""Two nodes, one of which may be cut off from Redis."""

from collections.abc import AsyncIterator

import pytest

from signaling.broker import alone
from tests.redis_server import RedisServer
from tests.signaling.broker.torn import Torn, torn_world


@pytest.fixture
async def torn(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Torn]:
    """They wait only a moment for it to come back."""
    monkeypatch.setattr(alone, "GRACE", 0.05)
    server.client.flushdb()
    async with torn_world(server) as made:
        yield made
