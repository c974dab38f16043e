"""What nodes of these tests suffer: they die, sleep, and are taken for dead."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from signaling.broker.redis import RedisBroker
from tests.redis_server import RedisServer

LEASE = 2.0
"""Seconds; short, so that the tests are, but longer than this machine may be busy otherwise."""


def field(server: RedisServer, session: str, name: str) -> bytes:
    """A field of a session, as Redis has it."""
    (key,) = server.client.keys(f"*:s:{session}")
    value: Any = server.client.hget(key, name)
    return bytes(value)


def expire_lease(server: RedisServer, node: str) -> None:
    """As if a node had not been heard of for long."""
    for key in server.client.keys("*:n"):
        if server.client.zscore(key, node) is not None:
            server.client.zadd(key, {node: 1})


@asynccontextmanager
async def taken_for_dead(
    server: RedisServer, node: RedisBroker, by: RedisBroker, session: str
) -> AsyncIterator[None]:
    """A node is not heard of for long: another one suspends its sessions. Then it is back."""
    back, real = asyncio.Event(), node._link.call

    async def silent(script: str, *arguments: Any) -> Any:
        if script == "enlist":
            await back.wait()
        return await real(script, *arguments)

    node._link.call = silent  # type: ignore[method-assign]
    while field(server, session, "owner") != b"":  # a renewal may have been on its way
        expire_lease(server, node.node)
        await by.reap(0)
    yield
    node._link.call = real  # type: ignore[method-assign]
    back.set()


async def die(broker):
    """End a node as a crash does: nothing is told to anybody."""
    await broker._link.stop()
