"""Some nodes, the Redis that they share, and the wires between them: what a scenario breaks."""

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.chaos.checker import complaints, present
from tests.chaos.cluster import Node, cluster
from tests.chaos.talker import Talker, talkers
from tests.chaos.wire import Wire
from tests.patience import PATIENCE
from tests.redis_server import RedisServer, redis_server
from tests.redis_sites import Site

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
"""Times that each scenario is played, every time with another timing."""
LEASE = float(os.environ.get("CHAOS_LEASE", "2"))
"""Seconds; short, so that waiting for it is. The default of the settings is 8."""
SEED = int(os.environ.get("CHAOS_SEED", "0"))
"""0: another one each time."""
WINDOW = 1.5
"""The resume window of every session, in seconds."""
TICK = 1.0
"""Seconds between a node's looks at what is over."""
SLACK = 10.0
"""Seconds that this machine may be busy with something else."""


class World:
    """What a scenario may break. Every node reaches Redis by a wire of its own."""

    def __init__(
        self, nodes: list[Node], wires: list[Wire], redis: RedisServer | Site, dice: random.Random
    ) -> None:
        self.nodes = nodes
        self.wires = wires
        self.redis = redis
        self.dice = dice
        self.clients: list[Talker] = []
        """They know every node, and come back."""
        self.doomed: list[Talker] = []
        """They know the first node only, and vanish with it."""
        self._sessions: dict[Talker, int] = {}
        """How many sessions each client had begun when the doomed vanished."""
        self._rooms = itertools.count()

    @property
    def server(self) -> RedisServer:
        """Redis, where it is one server that may be stopped."""
        assert isinstance(self.redis, RedisServer)
        return self.redis

    @property
    def site(self) -> Site:
        """Redis, where it is several servers."""
        assert isinstance(self.redis, Site)
        return self.redis

    async def play(self, scenario: Callable[["World"], Awaitable[None]]) -> None:
        """Let clients talk, let it happen, and see that every promise was kept."""
        room = f"room {next(self._rooms)}"
        urls = [node.url for node in self.nodes]
        async with (
            talkers([f"t{n}" for n in range(5)], room, urls, self.dice) as self.clients,
            talkers(["d0", "d1"], room, urls[:1], self.dice) as self.doomed,
        ):
            await until(lambda: all(len(c.log) > 10 for c in self.clients), PATIENCE, self.story)
            await self.trouble(self.dice.uniform(0.2, 0.8))
            await scenario(self)
            await self.trouble(self.dice.uniform(0.2, 0.8))
            await self.settle()
            assert self.redis.without_ttl() == []
        await self.nobody_is_left()

    async def vanish(self) -> set[str]:
        """Have the doomed go without a word; their peers."""
        for client in self.doomed:
            await client.vanish()
        self._sessions = {client: client.sessions for client in self.clients}
        return {client.peer for client in self.doomed}

    def elsewhere(self) -> list[Talker]:
        """The clients that do not depend on the first node."""
        return [client for client in self.clients if client.at != self.nodes[0].url]

    async def told(self, by: list[Talker], what: str, peers: set[str], within: float) -> None:
        """Wait until these clients heard something of all these peers.

        One that has begun another session since they vanished is told who is there instead.
        """

        def unheard() -> dict[str, set[str]]:
            return {
                client.name: peers - {line.peer for line in client.log if line.what == what}
                for client in by
                if client.sessions == self._sessions[client]
            }

        try:
            await until(lambda: not any(unheard().values()), within)
        except AssertionError:
            raise AssertionError(f"{what} was not told within {within} s: {unheard()}") from None

    async def trouble(self, seconds: float) -> None:
        """Sockets break now and then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(self.dice.uniform(0.05, 0.4))
            self.dice.choice(self.clients).drop()

    async def settle(self) -> None:
        """Let everyone say what it has begun to say, and hear what was said: all is right then."""
        living = self.living()
        for client in living:
            client.talking = False
        await until(lambda: all(client.idle for client in living), PATIENCE, self.story)
        # Who vanished is gone when its window is over, and not before.
        within = LEASE + WINDOW + 2 * TICK + SLACK
        await until(lambda: not self.wrongs(), within, lambda: "\n".join(self.wrongs()))
        await asyncio.sleep(0.2)  # something may come that should not
        assert not self.wrongs(), "\n".join(self.wrongs())

    def wrongs(self) -> list[str]:
        """Promises that are not kept, and who does not see exactly those who are there."""
        found = complaints({one.name: one.log for one in [*self.clients, *self.doomed]})
        there = {client.peer for client in self.living()}
        found += [
            f"{client.name} sees {sorted(present(client.log))}"
            for client in self.living()
            if present(client.log) != there - {client.peer}
        ]
        return [*found, self.story()] if found else []

    def living(self) -> list[Talker]:
        """All who have not vanished."""
        return [client for client in [*self.clients, *self.doomed] if not client.gone]

    def story(self) -> str:
        """Who is where, and whom each believes to be there."""
        return story([*self.clients, *self.doomed])

    async def nobody_is_left(self) -> None:
        """When all have vanished, nothing of a session, a room or a mailbox stays."""

        def left() -> list[bytes]:
            worlds: Any = self.redis.client.keys("{*}:g")
            if len(worlds) != 1:  # another server has taken over, and no node has been there yet
                return [b"no generation"]
            generation = self.redis.client.hget(worlds[0], "name")
            kinds = {b"s", b"m", b"j", b"d", b"p", b"r"}
            keys = (key.split(b":") for key in self.redis.every_key())
            return [b":".join(key) for key in keys if key[1] == generation and key[2] in kinds]

        await until(lambda: not left(), LEASE + WINDOW + 2 * TICK + SLACK, lambda: str(left()))


@asynccontextmanager
async def world(folder: Path, seed: int, nodes: int = 3) -> AsyncIterator[World]:
    """Nodes that serve."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis_server(folder / "redis"))
        wires = [Wire(server.port) for _ in range(nodes)]
        for wire in wires:
            await wire.start()
            stack.push_async_callback(wire.stop)
        urls = [f"redis://127.0.0.1:{wire.port}" for wire in wires]
        started = await _in_thread(stack, folder, urls)
        yield World(started, wires, server, random.Random(seed))


@asynccontextmanager
async def world_on(kind: Callable[[Path], Any], folder: Path, seed: int) -> AsyncIterator[World]:
    """Two nodes that serve, over Redis of a kind (``tests.redis_sites``)."""
    async with AsyncExitStack() as stack:
        site = stack.enter_context(kind(folder))
        nodes = await _in_thread(stack, folder, [site.url] * 2)
        yield World(nodes, [], site, random.Random(seed))


async def _in_thread(stack: AsyncExitStack, folder: Path, urls: Sequence[str]) -> list[Node]:
    """Start nodes while the wires of this loop go on working."""
    running = cluster(folder, urls, window=WINDOW, lease=LEASE)
    nodes = await asyncio.to_thread(running.__enter__)
    stack.push(running.__exit__)
    return nodes


def story(clients: Sequence[Talker]) -> str:
    """Who is where, and whom each believes to be there."""
    return "\n".join(
        f"{c.name} {c.peer} {'gone from' if c.gone else 'at' if c.joined else 'not in at'} "
        f"{c.at}: frame {c.waits_for}, "
        f"{c.welcomes} welcomes, refused {c.refusals[-3:]}, sees {sorted(present(c.log))}, "
        f"ends with {c.log[-3:]}"
        for c in clients
    )


async def until(
    condition: Callable[[], object], within: float, story: Callable[[], str] = lambda: ""
) -> None:
    """Wait for a condition. :param story: what to tell where it does not come to be."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to be within {within} s\n{story()}"
        await asyncio.sleep(0.05)


async def serving(nodes: Sequence[Node], *, yes: bool = True) -> None:
    """Wait until all nodes say that they may be sent clients, or that they may not."""
    deadline = time.monotonic() + PATIENCE
    # In a thread: the wires, by which the nodes reach Redis, are of this loop.
    while any([await asyncio.to_thread(node.ready) is not yes for node in nodes]):
        assert time.monotonic() < deadline, f"not all nodes said {yes} within {PATIENCE} s"
        await asyncio.sleep(0.05)
