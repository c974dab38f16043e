"""Redis is away for long: sockets stay open, whoever is at one node goes on talking, to one or to
all of a room, joins are told to try again, and all returns by itself.
"""

import asyncio
import os
import random
import time
from collections.abc import Sequence

from tests.chaos.talker import Talker, talkers
from tests.chaos.world import serving, story, until, world
from tests.patience import PATIENCE

AWAY = float(os.environ.get("CHAOS_AWAY", "5"))
"""Seconds that Redis is away; what the suite promises is tried with 60."""
GOES_ON_WITHIN = 5.0
"""Seconds, as promised, from Redis being back until everyone talks again."""


async def test_nobody_is_cut_while_redis_is_away_and_all_goes_on_when_it_is_back(tmp_path):
    async with world(tmp_path, 1, 2) as chaos:
        near, far = ([node.url] for node in chaos.nodes)
        async with (
            talkers(["n0", "n1", "n2"], "r", near, chaos.dice) as ours,
            talkers(["f0", "f1"], "r", far, chaos.dice) as theirs,
            talkers(["l0", "l1", "l2"], "all of it here", near, chaos.dice) as local,
        ):
            chaos.clients = clients = [*ours, *theirs]
            for client in [*clients, *local]:
                client.patience = PATIENCE  # it is of the machine, not of Redis
            await until(lambda: all(len(c.log) > 10 for c in [*clients, *local]), PATIENCE)
            await keep_to_themselves(ours)
            await keep_to_themselves(theirs)
            welcomes = [client.welcomes for client in [*clients, *local]]
            chaos.server.sleep()
            slept = time.monotonic()
            await serving(chaos.nodes, yes=False)
            assert [node.metric("icebroker_broker_up") for node in chaos.nodes] == [0, 0]
            async with talkers(["late"], "r", near, random.Random(2)) as (late,):
                await until(lambda: "unavailable" in late.refusals, PATIENCE, chaos.story)
                talking = [*clients, *local]
                await talk_goes_on(talking, PATIENCE)  # within a node: Redis is not needed for it
                told = [client.told_all for client in local]
                await asyncio.sleep(max(0, slept + AWAY - time.monotonic()))
                await talk_goes_on(talking, PATIENCE)
                await until(
                    lambda: all(c.told_all > n for c, n in zip(local, told, strict=True)), PATIENCE
                )
                assert not late.joined
                for client in clients:
                    client.partners = None
                chaos.server.wake()
                await talk_goes_on(talking, GOES_ON_WITHIN)
                await serving(chaos.nodes)
                # Nobody's socket was closed for it.
                assert [client.welcomes for client in talking] == welcomes
                await until(lambda: late.joined, PATIENCE)
                clients.append(late)
                await chaos.settle()
                chaos.clients = local
                await chaos.settle()


async def keep_to_themselves(clients: Sequence[Talker]) -> None:
    """Have clients of one node write to each other alone, and be answered so."""
    peers = {client.peer for client in clients}
    for client in clients:
        client.partners = peers
    said = [client.acknowledged for client in clients]
    await until(
        lambda: all(c.acknowledged > n + 2 for n, c in zip(said, clients, strict=True)), PATIENCE
    )


async def talk_goes_on(clients: Sequence[Talker], within: float) -> None:
    """Wait until messages of everyone's are acknowledged anew."""
    numbers = [client.acknowledged for client in clients]

    def all_went_on() -> bool:
        talk = zip(numbers, clients, strict=True)
        return all(client.acknowledged > before + 3 for before, client in talk)

    await until(all_went_on, within, lambda: story(clients))
