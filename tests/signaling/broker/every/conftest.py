"""Two nodes of every broker: the embedded one and each kind of Redis."""

import pytest

from tests.redis_sites import PREFIX, SITES
from tests.signaling.broker.worlds import memory_world, redis_world


@pytest.fixture(scope="module", params=["memory", *SITES])
def site(request, tmp_path_factory):
    """What the nodes share: nothing, or a Redis of one kind for all tests of this file."""
    if request.param == "memory":
        yield None
    else:
        with SITES[request.param](tmp_path_factory.mktemp(request.param)) as running:
            yield running


@pytest.fixture
async def world(site):
    """Two nodes, and nothing of the test before."""
    if site is None:
        async with memory_world() as made:
            yield made
    else:
        site.client.flushall()
        async with redis_world(site, PREFIX) as made:
            yield made
