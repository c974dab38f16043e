"""One or two nodes over a broker: the embedded one, or Redis; the same tests over both."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Protocol

from msgspec import Raw

from config.redis import RedisTls, parse_redis_url
from config.webhooks.waiting import WaitingEvents
from signaling.broker.base import Broker, Grant, Revocation, SessionRecord
from signaling.broker.memory import MemoryBroker
from signaling.broker.primary import Finder
from signaling.broker.redis import RedisBroker
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL, MessageOut
from tests.redis_server import RedisServer
from tests.redis_sites import Site

MOST_MESSAGES, MOST_BYTES = 8, 10_000
WINDOW = 30.0


class Ear:
    """A hub that keeps what it is handed."""

    def __init__(self) -> None:
        self.delivered: list[tuple[str, int, bytes]] = []
        self.revocations: list[Revocation] = []
        self.cuts: list[tuple[str, CloseCode]] = []

    def deliver(self, session: str, seq: int, frame: bytes) -> None:
        """Keep it."""
        self.delivered.append((session, seq, frame))

    def revoked(self, revocation: Revocation) -> None:
        """Keep it."""
        self.revocations.append(revocation)

    def cut(self, session: str, code: CloseCode) -> None:
        """Keep it."""
        self.cuts.append((session, code))


class World:
    """Two nodes; with the embedded broker both are the same one."""

    def __init__(self, one: Broker, two: Broker, ear: Ear) -> None:
        self.one = one
        self.two = two
        self.ear = ear
        self.now = 0.0

    async def settle(self) -> None:
        """Return when everything that was published has been handed on."""

    def later(self, seconds: float) -> None:
        """Let time go by."""
        self.now += seconds

    async def reap(self) -> int:
        """End what is over; the sessions that are."""
        return await self.two.reap(self.now)

    def forget(self) -> None:
        """Hear anew."""
        self.ear.delivered.clear()

    async def heard(self, session: str) -> list[tuple[str, Any, int]]:
        """(type, event or data, seq) of everything that a session was handed."""
        await self.settle()
        events = [json.loads(frame) for name, _, frame in self.ear.delivered if name == session]
        return [(e["type"], e.get("event", e.get("data")), e["seq"]) for e in events]

    async def presence(self, session: str) -> list[str]:
        """The presence that a session was told of."""
        return [what for kind, what, _ in await self.heard(session) if kind == "peer"]


class RedisWorld(World):
    """Two nodes that share a Redis."""

    def __init__(
        self, one: RedisBroker, two: RedisBroker, ear: Ear, server: RedisServer | Site, prefix: str
    ) -> None:
        super().__init__(one, two, ear)
        self.nodes = (one, two)
        self.prefix = prefix
        self._server = server

    async def settle(self) -> None:
        """Each node's lease is renewed by the channel that its events come by, after them."""
        for node in self.nodes:
            await node.renew()

    def later(self, seconds: float) -> None:
        """Redis has the clock: what is to end ends earlier."""
        super().later(seconds)
        for key in self._server.client.keys("*:x"):
            sessions: Any = self._server.client.zrange(key, 0, -1)
            for session in sessions:
                self._server.client.zincrby(key, -seconds * 1000, session)


@asynccontextmanager
async def memory_world(*, webhooks: bool = False) -> AsyncIterator[World]:
    """The embedded broker."""
    waiting = WaitingEvents() if webhooks else None
    broker, ear = MemoryBroker(MOST_MESSAGES, MOST_BYTES, waiting), Ear()
    await broker.start(ear)
    try:
        yield World(broker, broker, ear)
    finally:
        await broker.stop()


Call = Callable[..., Coroutine[Any, Any, Any]]
"""Runs a script for a node: its name and arguments, to its reply."""


@contextmanager
def instead(broker: RedisBroker, run: Call) -> Iterator[None]:
    """Have a node run its scripts otherwise. :param run: is given the ``Call`` that was, first."""
    link, real = broker._link, broker._link.call
    link.call = partial(run, real)  # type: ignore[method-assign]
    try:
        yield
    finally:
        link.call = real  # type: ignore[method-assign]


class Place(Protocol):
    """Where a broker finds Redis."""

    @property
    def url(self) -> str:
        """As a configuration has it."""

    @property
    def tls(self) -> RedisTls:
        """The files that a connection over TLS begins with."""


def redis_broker(server: Place, prefix: str, **options: Any) -> RedisBroker:
    """A node's broker that is not started yet."""
    finder = Finder(parse_redis_url(server.url), "{" + prefix + "}", server.tls)
    return RedisBroker(finder, prefix, MOST_MESSAGES, MOST_BYTES, **{"lease": 8.0, **options})


@asynccontextmanager
async def redis_world(
    server: RedisServer | Site, prefix: str = "", **options: Any
) -> AsyncIterator[RedisWorld]:
    """Two nodes. :param prefix: empty: one of their own."""
    prefix = prefix or f"test-{secrets.token_hex(4)}"
    one, two = (redis_broker(server, prefix, **options) for _ in range(2))
    ear = Ear()
    await one.start(ear)
    await two.start(ear)
    try:
        yield RedisWorld(one, two, ear, server, prefix)
    finally:
        await one.stop()
        await two.stop()


async def quietly(broker: Any, name: str, room: str, capacity: int = 64) -> None:
    """A session that is in a room without anybody's being told."""
    await broker.open(SessionRecord(name, name.encode(), f"peer-{name}", name, Grant()))
    assert await broker.join(name, room, NULL, capacity, quiet=True) == []


async def begin(broker: Broker, name: str, *rooms: str, **grant: Any) -> None:
    """A session that has joined rooms; its peer is ``peer-NAME``, its secret's hash the name."""
    granted = Grant(**{"resume_window": WINDOW, **grant})
    await broker.open(SessionRecord(name, name.encode(), f"peer-{name}", name, granted))
    for room in rooms:
        await broker.join(name, room, NULL, 64)


def raw(data: Any) -> Raw:
    """Application data as it came in a frame."""
    return Raw(json.dumps(data).encode())


def message(data: Any) -> MessageOut:
    """A message of session ``a``."""
    return MessageOut("peer-a", raw(data))
