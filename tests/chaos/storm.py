"""Everything breaks at once: each node, its wire and Redis have troubles of their own."""

import asyncio
import random
import time

from tests.chaos.cluster import DRAIN, Node
from tests.chaos.wire import Wire
from tests.chaos.world import SLACK, World, serving, until

LENGTH = 8.0
"""Seconds."""
MOMENT, WHILE = 0.5, 5.0
"""The longest that a short and a long trouble takes, in seconds."""


async def storm(chaos: World) -> None:
    """Break all of it again and again; it is whole again at the end."""
    end = time.monotonic() + LENGTH
    async with asyncio.TaskGroup() as troubles:
        for node, wire in zip(chaos.nodes, chaos.wires, strict=True):
            troubles.create_task(_break_node(node, wire, random.Random(chaos.dice.random()), end))
        troubles.create_task(_break_redis(chaos, random.Random(chaos.dice.random()), end))
    await serving(chaos.nodes)


async def _break_node(node: Node, wire: Wire, dice: random.Random, end: float) -> None:
    while time.monotonic() < end:
        await asyncio.sleep(dice.uniform(0, 1.5))
        seconds = _some_time(dice)
        match dice.choice(["killed", "drained", "asleep", "cut", "held"]):
            case "killed":
                node.kill()
                await asyncio.sleep(seconds / 2)
                await _start(node)
            case "drained":
                node.drain()
                await until(node.ended, DRAIN + SLACK)
                await _start(node)
            case "asleep":
                node.sleep()
                await asyncio.sleep(seconds)
                node.wake()
            case "cut":
                wire.cut()
                await asyncio.sleep(seconds)
                wire.mend()
            case "held":
                wire.hold()
                await asyncio.sleep(seconds)
                wire.mend()


async def _start(node: Node) -> None:
    node.start()
    # In a thread: the wires, by which the node reaches Redis, are of this loop.
    await asyncio.to_thread(node.wait_ready)


async def _break_redis(chaos: World, dice: random.Random, end: float) -> None:
    while time.monotonic() < end:
        await asyncio.sleep(dice.uniform(0, 5))
        if dice.random() < 0.5:
            chaos.server.sleep()
            await asyncio.sleep(_some_time(dice))
            chaos.server.wake()


def _some_time(dice: random.Random) -> float:
    return dice.uniform(0, dice.choice([MOMENT, WHILE]))
