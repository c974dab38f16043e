"""Two nodes that share a Redis, which a test may leave alone or hurt."""

import pytest

from tests.redis_server import redis_server
from tests.signaling.broker.redis.nodes import LEASE
from tests.signaling.broker.worlds import redis_world


@pytest.fixture
def own_server(tmp_path):
    """A Redis that a test may hurt."""
    with redis_server(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def world(server):
    """Two nodes, and nothing of the test before."""
    server.client.flushdb()
    async with redis_world(server, lease=LEASE) as made:
        yield made


@pytest.fixture
async def own_world(own_server):
    """Two nodes whose Redis a test may hurt."""
    async with redis_world(own_server, lease=LEASE) as made:
        yield made
