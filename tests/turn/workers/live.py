"""A pool of real worker processes on loopback, and clients that speak to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from config.schema import LogSettings
from tests.turn.live import Client, settings
from turn.codec import registry
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.workers.pool import WorkerPool

LOGS = LogSettings(level="warning")


@asynccontextmanager
async def pool(**changes: Any) -> AsyncIterator[WorkerPool]:
    """Two workers that serve."""
    made = WorkerPool(settings(**({"workers": 2} | changes)), LOGS)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def allocations(made: WorkerPool) -> list[int]:
    """How many live at each worker."""
    await made.refresh()
    return [report.allocations for report in made.collector.reports]


async def requests(made: WorkerPool) -> list[int]:
    """How many each worker was sent."""
    await made.refresh()
    listed = [report.counts["requests"] for report in made.collector.reports]
    return [sum(count for _, count in each) for each in listed if isinstance(each, list)]


def code_of(reply: Message) -> int:
    """The error code of a reply, 0 of a success."""
    return (reply.get(registry.ERROR_CODE) or (0, ""))[0]


def send_indication(peer: Address, payload: bytes) -> bytes:
    """A Send indication."""
    return build(
        Method.SEND, MessageClass.INDICATION, bytes(12),
        ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, payload)),
    )  # fmt: skip


def data_of(message: bytes) -> bytes:
    """What a Data indication brings."""
    return parse_untrusted(message).get(registry.DATA) or b""


async def say(one: Client, to: Address, other: Client, payload: bytes, patience: float = 2) -> bool:
    """Whether what one client sends to a peer reaches another client."""
    await one.send(send_indication(to, payload))
    try:
        return data_of(await other.receive(patience)) == payload
    except TimeoutError:
        return False


async def permit(client: Client, *peers: Address) -> int:
    """Ask for permissions; gives the code of the reply."""
    wanted = ((registry.XOR_PEER_ADDRESS, peer) for peer in peers)
    return code_of(await client.request(Method.CREATE_PERMISSION, *wanted))


async def refresh(client: Client, lifetime: int = 600) -> int:
    """Refresh the allocation; gives the code of the reply."""
    return code_of(await client.request(Method.REFRESH, (registry.LIFETIME, lifetime)))


async def together(*work: Any) -> list[Any]:
    """Do all at the same time."""
    return list(await asyncio.gather(*work))
