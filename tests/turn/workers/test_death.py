"""A worker is killed: what the others' clients notice, and what comes back."""

import asyncio
import os
import signal
import socket
import sys

import pytest

from tests.patience import until
from tests.turn.live import UDP, settings
from tests.turn.workers.live import (
    LOGS,
    allocate,
    permit,
    refresh,
    say,
    send_indication,
    together,
)
from turn.codec import registry
from turn.codec.registry import Method
from turn.workers import worker
from turn.workers.pool import WorkerPool

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVEN_PORT = (registry.EVEN_PORT, True)


async def test_the_others_clients_notice_nothing_and_quotas_come_back(stage):
    stage.reload(max_allocations_per_user=12)
    (mine, at_mine), (lost, at_lost) = await stage.one_at_each()
    await together(*map(allocate, await stage.clients(12)))
    survivors, others = await stage.allocations()
    assert survivors + others == 12
    await together(permit(mine, at_mine, at_lost), permit(lost, at_mine))
    before = await stage.samples()
    traffic = asyncio.create_task(keeps_talking(mine, at_mine))
    await asyncio.sleep(0.2)
    pid = await stage.kill(1)
    assert stage.pool.ready() == ["worker 1 is being replaced"]
    assert (await stage.samples())["icebroker_turn_worker_up", "1"] == 0
    await until(lambda: stage.pool.pids[1] not in {None, pid})
    assert stage.pool.ready() == []
    traffic.cancel()
    sent, came = await traffic
    assert sent == came > 10
    after = await stage.samples()
    assert not [name for name in before if "_total" in name[0] and after[name] < before[name]]
    restarts = ("icebroker_turn_worker_restarts_total", "1")
    assert after[restarts] == before[restarts] + 1
    # Whoever was with the dead one is told with the next request, and allocates anew.
    assert await refresh(lost) == 437
    assert sum(await stage.allocations()) == survivors
    codes = await together(*map(allocate, await stage.clients(12)))
    assert codes.count(0) == 12 - survivors


BROKEN = """
import sys
from turn.server import TurnService
from turn.workers import child

async def tick(self):
    raise ZeroDivisionError("a fault of ours")

TurnService._tick = tick
child.main()
"""


async def test_one_that_expires_nothing_any_more_is_replaced(monkeypatch):
    spawned, real = [], worker._spawn

    async def spawn(descriptor):
        spawned.append(descriptor)
        if len(spawned) > 1:
            return await real(descriptor)
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", BROKEN, str(descriptor),
            stdin=asyncio.subprocess.DEVNULL, pass_fds=(descriptor,),
        )  # fmt: skip

    monkeypatch.setattr(worker, "_spawn", spawn)
    pool = WorkerPool(settings(workers=2), LOGS)
    await pool.start()
    try:
        await until(lambda: len(spawned) == 3 and not pool.ready())
    finally:
        await pool.stop()


async def keeps_talking(client, to):
    """Sends to itself by way of the relay until cancelled; gives what was sent, what came."""
    sent = came = 0
    try:
        while True:
            sent += 1
            came += await say(client, to, client, b"%d" % sent)
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        return sent - (sent > came), came


async def test_what_only_the_dead_one_had_is_nobodys(stage):
    """Its relayed addresses are no peers any more; a port that it reserved is not waited for."""
    stage.reload(allow_peers=[])
    (one, at_one), (two, at_two) = await stage.one_at_each()
    await together(permit(one, at_two), permit(two, at_one))
    assert await say(one, at_two, two, b"there")
    tokens = []
    for client in await stage.clients(12):
        reply = await client.request(Method.ALLOCATE, UDP, EVEN_PORT)
        tokens.append(reply.get(registry.RESERVATION_TOKEN))
    dead = [token for token in tokens if token[0] == 1]
    assert 0 < len(dead) < len(tokens)
    await stage.kill(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as next_owner:
        next_owner.bind(at_two)
        next_owner.settimeout(0.3)
        await stage.pool.refresh()
        await one.send(send_indication(at_two, b"a secret"))
        with pytest.raises(TimeoutError):
            next_owner.recv(100)
    await stage.settle()
    for client, token in zip(await stage.clients(len(dead)), dead, strict=True):
        assert await allocate(client, (registry.RESERVATION_TOKEN, token)) == 508


async def test_one_that_does_nothing_any_more_is_replaced(stage, monkeypatch):
    monkeypatch.setattr("turn.workers.worker.LOOK", 0.1)
    monkeypatch.setattr("turn.workers.worker.STUCK", 2.0)
    await stage.kill(0)  # its guard sleeps for as long as before
    await stage.settle()
    pid = stage.pool.pids[0]
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: stage.pool.pids[0] not in {None, pid})
    monkeypatch.undo()
    assert set(await together(*map(allocate, await stage.clients(8)))) == {0}
