"""Redis is away for long: sockets stay open, joins are told to try again, all returns by itself."""

import asyncio
import os
import random
import time

from tests.chaos.talker import talkers
from tests.chaos.world import World, serving, until, world
from tests.patience import PATIENCE

AWAY = float(os.environ.get("CHAOS_AWAY", "5"))
"""Seconds that Redis is away; what the suite promises is tried with 60."""
GOES_ON_WITHIN = 5.0
"""Seconds, as promised, from Redis being back until everyone talks again."""


async def test_nobody_is_cut_while_redis_is_away_and_all_goes_on_when_it_is_back(tmp_path):
    async with world(tmp_path, 1, 2) as chaos:
        urls = [node.url for node in chaos.nodes]
        async with talkers([f"t{n}" for n in range(4)], "r", urls, chaos.dice) as chaos.clients:
            clients = chaos.clients
            for client in clients:
                client.patience = 10  # a node asks Redis for 3 s before it says that it is away
            await until(lambda: all(len(client.log) > 10 for client in clients), PATIENCE)
            welcomes = [client.welcomes for client in clients]
            chaos.server.sleep()
            slept = time.monotonic()
            await serving(chaos.nodes, yes=False)
            assert [node.metric("icebroker_broker_up") for node in chaos.nodes] == [0, 0]
            async with talkers(["late"], "r", urls, random.Random(2)) as (late,):
                await until(lambda: "unavailable" in late.refusals, PATIENCE, chaos.story)
                await asyncio.sleep(max(0, slept + AWAY - time.monotonic()))
                assert not late.joined
                chaos.server.wake()
                await goes_on(chaos)
                # Nobody's socket was closed for it.
                assert [client.welcomes for client in clients] == welcomes
                await until(lambda: late.joined, PATIENCE)
                clients.append(late)
                await chaos.settle()


async def goes_on(chaos: World) -> None:
    """Wait until everyone's messages are acknowledged again, and every node takes clients."""
    numbers = [client.acknowledged for client in chaos.clients]

    def all_went_on() -> bool:
        talk = zip(numbers, chaos.clients, strict=True)
        return all(client.acknowledged > before + 3 for before, client in talk)

    await until(all_went_on, GOES_ON_WITHIN, chaos.story)
    await serving(chaos.nodes)
