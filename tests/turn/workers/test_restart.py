"""Calls outlive a worker, and the pool, where there is a folder to record them in."""

import pytest
import pytest_asyncio

from tests.interop.process import free_port
from tests.turn.live import port_of, settings
from tests.turn.workers.live import LOGS, Stage, allocate, permit, refresh, say, together
from turn.workers.pool import WorkerPool

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def begin(connect, tmp_path):
    """Starts pools on one address, with one state folder; all are stopped in the end."""
    fixed = {
        "workers": 2,
        "listen": [f"127.0.0.1:{free_port()}"],
        "state_directory": str(tmp_path),
        "secret": "a secret of thirty-two characters",
        "max_allocations_per_user": 12,
        "allow_peers": [],
    }
    pools = []

    async def begin():
        pools.append(WorkerPool(settings(**fixed), LOGS))
        await pools[-1].start()
        return Stage(pools[-1], fixed, connect)

    yield begin
    for each in pools:
        await each.stop()


async def test_calls_outlive_their_worker(begin):
    stage = await begin()
    (one, at_one), (two, at_two) = await stage.one_at_each()
    await together(permit(one, at_two), permit(two, at_one))
    assert await say(one, at_two, two, b"before")
    await stage.kill(1)
    await stage.settle()
    assert await say(one, at_two, two, b"to the one that was killed")
    assert await say(two, at_one, one, b"from it")
    assert await together(refresh(one), refresh(two)) == [0, 0]
    codes = await together(*map(allocate, await stage.clients(12)))
    assert codes.count(0) == 10


async def test_calls_outlive_the_pool(begin):
    stage = await begin()
    (one, at_one), (two, at_two) = await stage.one_at_each()
    await together(permit(one, at_two), permit(two, at_one))
    await stage.pool.leave()
    again = await begin()
    assert port_of(again.pool) == port_of(stage.pool)
    assert await say(one, at_two, two, b"there")
    assert await say(two, at_one, one, b"and back")
    assert await again.allocations() == [1, 1]
