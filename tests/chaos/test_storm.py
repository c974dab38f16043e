"""Everything breaks at once, again and again: what was promised is kept."""

import random
from collections.abc import Sequence

import pytest

from tests.chaos.shipped import Shipped, shipped, wrongs
from tests.chaos.storm import storm
from tests.chaos.world import LEASE, ROUNDS, SEED, SLACK, TICK, WINDOW, World, until, world
from tests.patience import PATIENCE

SETTLED_WITHIN = LEASE + WINDOW + 2 * TICK + SLACK + PATIENCE
"""Seconds: the last who was lost is gone, and all others are back."""


@pytest.mark.timeout(120 + 60 * ROUNDS)
async def test_every_promise_is_kept_in_a_storm(tmp_path):
    seed = SEED or random.randrange(1 << 32)
    print(f"CHAOS_SEED={seed}")  # a failure shows it

    async with world(tmp_path, seed) as chaos:
        for _ in range(ROUNDS):
            await chaos.play(storm)


@pytest.mark.timeout(120 + 60 * ROUNDS)
async def test_the_python_client_comes_through_a_storm(tmp_path):
    seed = SEED or random.randrange(1 << 32)
    print(f"CHAOS_SEED={seed}")

    async with world(tmp_path, seed) as chaos:
        ports = [node.port for node in chaos.nodes]
        for number in range(ROUNDS):
            async with shipped(5, ports, f"room {number}", chaos.dice) as clients:
                await _stormed(chaos, clients)


async def _stormed(chaos: World, clients: Sequence[Shipped]) -> None:
    await until(lambda: all(len(client.log) > 10 for client in clients), PATIENCE)
    await storm(chaos)
    for client in clients:
        client.talking = False
    await until(lambda: not wrongs(clients), SETTLED_WITHIN, lambda: "\n".join(wrongs(clients)))
