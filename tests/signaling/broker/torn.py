"""Two nodes, one of which may be cut off from Redis, and three sessions that share a room there.

Node ``one`` reaches Redis by a wire of its own; node ``two`` always reaches it. Sessions ``a``,
``b`` and ``c`` are at ``one``.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest

from config.redis import RedisTls
from signaling.broker.base import Later, Unavailable
from signaling.broker.ledger import JUMP
from signaling.broker.redis import RedisBroker
from tests.chaos.wire import Wire
from tests.redis_server import RedisServer
from tests.signaling.broker.worlds import Call, Ear, begin, instead, message, redis_broker

WITHIN = 30.0
"""Seconds; bounds waiting alone."""


class Site(NamedTuple):
    """Where a broker finds Redis."""

    url: str
    tls: RedisTls = RedisTls()


class Torn:
    """Two nodes, one of which may be cut off."""

    def __init__(self, one: RedisBroker, two: RedisBroker, wire: Wire) -> None:
        self.one = one
        self.two = two
        self.wire = wire
        self.ears: dict[RedisBroker, Ear] = {one: Ear(), two: Ear()}

    async def cut(self) -> None:
        """Part node one from Redis."""
        self.wire.cut()
        await until(lambda: not self.one.is_up())

    async def mend(self) -> None:
        """Have it back, and everything put right and handed on."""
        self.wire.mend()
        for node in (self.one, self.two):
            await until(node.is_up)
        await self.one.renew()
        await self.two.renew()

    async def comes_and_goes(
        self, lost: str, meanwhile: Callable[[], object] = lambda: True
    ) -> None:
        """Have Redis come back, do one script, and be gone with its answer."""

        async def loses_the_answer(real: Call, script: str, *arguments: Any) -> Any:
            reply = await real(script, *arguments)
            if script == lost:
                await until(meanwhile)
                self.wire.cut()
                raise Unavailable("Redis went away")
            return reply

        with instead(self.one, loses_the_answer):
            self.wire.mend()
            await until(lambda: not self.wire._whole)

    def heard(self, broker: RedisBroker, session: str) -> list[Any]:
        """The data of the messages that a session was handed at a node."""
        events = [json.loads(t) for name, _, t in self.ears[broker].delivered if name == session]
        return [event["data"] for event in events if event["type"] == "message"]

    def last(self, session: str) -> int:
        """The number of the last event that a session was handed at node one."""
        return max(seq for name, seq, _ in self.ears[self.one].delivered if name == session)

    def last_elsewhere(self, session: str) -> int:
        """The same of node two; 0: of none."""
        delivered = self.ears[self.two].delivered
        return max((seq for name, seq, _ in delivered if name == session), default=0)

    async def missed(self, session: str, last_seq: int) -> list[Any]:
        """The data of the messages that a session is handed when it goes on at node two."""
        resumption = await self.two.resume(session, session.encode(), last_seq)
        assert resumption is not None
        return [json.loads(text)["data"] for _, text in resumption.missed]

    async def all_acknowledge(self) -> None:
        """``b`` and ``c`` have everything that they were handed."""
        for session in "bc":
            await self.one.acknowledge(session, self.last(session))

    async def tell_all(self, data: Any, request: str = "") -> "asyncio.Future[bool]":
        """``a`` tells its room something, which goes without Redis; when it is certain."""
        with pytest.raises(Later) as later:
            await self.one.broadcast("a", message(data), request or f"id {data}")
        return asyncio.ensure_future(later.value.answer)

    async def bind(self) -> None:
        """Have ``a`` acknowledge a number of node one's own: it resumes nowhere else then."""
        assert self.last("a") > JUMP
        await self.one.acknowledge("a", self.last("a"))

    async def tell(self, data: Any, request: str = "") -> "asyncio.Future[bool]":
        """``a`` tells ``b`` something, which goes without Redis; when it is certain."""
        with pytest.raises(Later) as later:
            await self.one.send("a", "peer-b", message(data), request or f"id {data}")
        return asyncio.ensure_future(later.value.answer)


async def until(condition: Any) -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.02)


@asynccontextmanager
async def torn_world(server: RedisServer) -> AsyncIterator[Torn]:
    async with AsyncExitStack() as stack:
        wire = Wire(server.port)
        await wire.start()
        stack.push_async_callback(wire.stop)
        # Nobody reaps here; a short lease is soon found to be over.
        one = redis_broker(Site(f"redis://127.0.0.1:{wire.port}"), "torn", lease=2.0)
        two = redis_broker(server, "torn", lease=2.0)
        made = Torn(one, two, wire)
        for broker in (one, two):
            await broker.start(made.ears[broker])
            stack.push_async_callback(broker.stop)
        for name in "abc":
            await begin(one, name, "room")
        yield made
