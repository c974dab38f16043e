"""Nodes, wires and Redis break while clients talk: what was promised is kept."""

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cluster import DRAIN
from tests.chaos.world import (
    LEASE,
    ROUNDS,
    SEED,
    SLACK,
    TICK,
    WINDOW,
    World,
    serving,
    until,
    world,
    world_on,
)
from tests.patience import PATIENCE
from tests.redis_sites import cluster, sentinels

SUSPENDED_WITHIN = LEASE + TICK + SLACK
"""Seconds; ten with the lease that is the default."""
LEFT_WITHIN = WINDOW + 2 * TICK + SLACK
PATIENCE_OF_NODES = 3.0
"""Seconds that a node waits for Redis before it says that it is away."""


async def drops(chaos: World) -> None:
    """Sockets break all the time and come back elsewhere; some never return."""
    await chaos.trouble(1.0)
    lost = await chaos.vanish()
    await chaos.told(chaos.clients, "suspended", lost, TICK + SLACK)
    await chaos.trouble(1.0)


async def death(chaos: World) -> None:
    """A node is killed, with a few who never return, and starts anew."""
    node, others = chaos.nodes[0], chaos.elsewhere()
    node.kill()
    died = time.monotonic()
    lost = await chaos.vanish()
    await asyncio.sleep(chaos.dice.uniform(0, LEASE))
    node.start()
    await chaos.told(others, "suspended", lost, died + SUSPENDED_WITHIN - time.monotonic())
    await chaos.told(chaos.clients, "leave", lost, LEFT_WITHIN)
    await asyncio.to_thread(node.wait_ready)


async def two_deaths(chaos: World) -> None:
    """A node is killed while another one sleeps; one is left to notice both."""
    mortal, sleepy, _ = chaos.nodes
    mortal.kill()
    await chaos.vanish()
    await asyncio.sleep(chaos.dice.uniform(0, 1))
    sleepy.sleep()
    await asyncio.sleep(LEASE + chaos.dice.uniform(0, 1))
    mortal.start()
    sleepy.wake()
    await asyncio.to_thread(mortal.wait_ready)


async def sleep(chaos: World) -> None:
    """A node does nothing for longer than its lease; what it says then is not heard."""
    node, others = chaos.nodes[0], chaos.elsewhere()
    node.sleep()
    slept = time.monotonic()
    lost = await chaos.vanish()
    await chaos.told(others, "suspended", lost, slept + SUSPENDED_WITHIN - time.monotonic())
    await asyncio.sleep(chaos.dice.uniform(LEASE / 2, LEASE + WINDOW))
    node.wake()


async def nap(chaos: World) -> None:
    """A node does nothing for a moment: nobody has to notice."""
    node = chaos.dice.choice(chaos.nodes)
    node.sleep()
    await asyncio.sleep(chaos.dice.uniform(0.1, LEASE / 2))
    node.wake()


async def drain(chaos: World) -> None:
    """A node is stopped as operators do it: its clients move, and nobody is told of anything."""
    node = chaos.nodes[0]
    node.drain()
    await until(node.ended, DRAIN + SLACK + TICK)
    await chaos.vanish()
    node.start()
    await asyncio.to_thread(node.wait_ready)


async def cut(chaos: World) -> None:
    """A node is cut off from Redis; its clients stay."""
    others = chaos.elsewhere()
    chaos.wires[0].cut()
    lost = await chaos.vanish()
    await chaos.told(others, "suspended", lost, SUSPENDED_WITHIN)
    await asyncio.sleep(chaos.dice.uniform(0, WINDOW))
    chaos.wires[0].mend()
    await serving(chaos.nodes[:1])


async def hold(chaos: World) -> None:
    """Nothing comes through between a node and Redis, and neither of them is told."""
    chaos.wires[0].hold()
    await asyncio.sleep(chaos.dice.uniform(0.1, PATIENCE_OF_NODES + LEASE + 1))
    chaos.wires[0].mend()
    await serving(chaos.nodes[:1])


async def redis_sleeps(chaos: World) -> None:
    """Redis answers nobody for a while."""
    chaos.server.sleep()
    await chaos.vanish()
    await asyncio.sleep(chaos.dice.uniform(0.1, PATIENCE_OF_NODES + LEASE))
    chaos.server.wake()
    await serving(chaos.nodes)


async def redis_forgets(chaos: World) -> None:
    """Redis restarts without its data: all begin anew, and are told so."""
    await _restart(chaos, keeps_data=False)


async def redis_restarts(chaos: World) -> None:
    """Redis restarts with its data: what was written last may be missing, so the same."""
    await _restart(chaos, keeps_data=True)


async def _restart(chaos: World, *, keeps_data: bool) -> None:
    peers = {client.peer for client in chaos.clients}
    await asyncio.to_thread(chaos.server.stop, save=keeps_data)
    await chaos.vanish()
    await asyncio.sleep(chaos.dice.uniform(0, 1))
    await asyncio.to_thread(chaos.server.start)
    await _begun_anew(chaos, peers)


async def another_server(chaos: World) -> None:
    """A failover, or a slot that moves: what the new server has not got is not pretended."""
    peers = {client.peer for client in chaos.clients}
    await asyncio.to_thread(chaos.site.change_servers)
    await chaos.vanish()
    await _begun_anew(chaos, peers)


async def _begun_anew(chaos: World, before: set[str]) -> None:
    await until(
        lambda: all(client.peer not in before and client.joined for client in chaos.clients),
        PATIENCE,
        chaos.story,
    )


GROUPS = {
    "deaths": ((drops, death, two_deaths), 3),
    "absences": ((sleep, nap, drain, cut, hold), 2),
    "redis": ((redis_sleeps, redis_forgets, redis_restarts), 2),
}
"""Name: (scenarios, nodes). Each group has a Redis of its own, and plays while the others do."""


@pytest.mark.timeout(240 + 60 * ROUNDS)
async def test_every_promise_is_kept(tmp_path):
    seed = SEED or random.randrange(1 << 32)
    print(f"CHAOS_SEED={seed}")  # a failure shows it

    async def play(name: str) -> None:
        scenarios, nodes = GROUPS[name]
        async with world(tmp_path / name, seed, nodes) as chaos:
            for _ in range(ROUNDS):
                for scenario in scenarios:
                    print(f"{name}: {scenario.__name__}")
                    await chaos.play(scenario)

    async with asyncio.TaskGroup() as groups:
        for name in GROUPS:
            groups.create_task(play(name))


@pytest.mark.timeout(240 + 60 * ROUNDS)
async def test_every_promise_is_kept_when_another_server_takes_over(tmp_path):
    seed = SEED or random.randrange(1 << 32)
    print(f"CHAOS_SEED={seed}")

    async def play(kind: Callable[[Path], Any]) -> None:
        async with world_on(kind, tmp_path / kind.__name__, seed) as chaos:
            for _ in range(ROUNDS):
                await chaos.play(drops)
                await chaos.play(another_server)

    async with asyncio.TaskGroup() as groups:
        for kind in (sentinels, cluster):
            groups.create_task(play(kind))
