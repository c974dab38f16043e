"""A pool of real worker processes on loopback, and clients that speak to it."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from config.schema import LogSettings
from tests.patience import PATIENCE, until
from tests.turn.live import UDP, Client, port_of, settings
from turn.codec import registry
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.stats import DropReason
from turn.workers.pool import WorkerPool

LOGS = LogSettings(level="warning")


class Stage:
    """A pool, and clients of it."""

    def __init__(
        self, pool: WorkerPool, fixed: dict[str, Any], connect: Callable[..., Awaitable[Client]]
    ) -> None:
        self.pool = pool
        self._fixed = fixed
        self._connect = connect
        self.closing: list[Client] = []
        """Clients that are closed in the end, however they came."""

    def reload(self, **changes: Any) -> None:
        """Change settings."""
        self.pool.reload(settings(**(self._fixed | changes)))

    async def clients(self, count: int, protocol: str = "udp") -> list[Client]:
        """Connect clients; what was asked of the workers before has come into force."""
        await self.pool.refresh()
        port = port_of(self.pool, protocol)
        return [await self._connect(port, tcp=protocol == "tcp") for _ in range(count)]

    async def allocations(self) -> list[int]:
        """How many live at each worker."""
        await self.pool.refresh()
        return [report.allocations for report in self.pool.collector.reports]

    async def requests(self) -> list[int]:
        """How many each worker was sent."""
        await self.pool.refresh()
        listed = [report.counts["requests"] for report in self.pool.collector.reports]
        return [sum(count for _, count in each) for each in listed if isinstance(each, list)]

    async def samples(self) -> dict[tuple[str, ...], float]:
        """The metrics, by name and label values."""
        await self.pool.refresh()
        return {
            (sample.name, *sample.labels.values()): sample.value
            for metric in self.pool.collector.collect()
            for sample in metric.samples
        }

    async def one_at_each(self) -> list[tuple[Client, Address]]:
        """A client with its relayed address at each of two workers."""
        found: dict[int, tuple[Client, Address]] = {}
        while len(found) < 2:
            before = await self.allocations()
            (client,) = await self.clients(1)
            relayed = await client.allocate()
            after = await self.allocations()
            at = next(number for number in (0, 1) if after[number] > before[number])
            if at in found:
                await refresh(client, 0)
            else:
                found[at] = (client, relayed)
        return [found[0], found[1]]

    async def kill(self, number: int) -> int:
        """Kill a worker, and wait until the pool knows; gives the process id that it had."""
        pid, tally = self.pool.pids[number], self.pool._workers[number].tally
        assert pid is not None
        before = tally.restarts
        os.kill(pid, signal.SIGKILL)
        await until(lambda: tally.restarts > before)
        return pid

    async def settle(self) -> None:
        """Wait until all workers serve."""
        await until(lambda: None not in self.pool.pids)


async def allocate(client: Client, *attributes: Any) -> int:
    """Ask for an allocation; gives the code of the reply."""
    return code_of(await client.request(Method.ALLOCATE, UDP, *attributes))


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


async def say(
    one: Client, to: Address, other: Client, payload: bytes, patience: float = PATIENCE
) -> bool:
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


async def pour(
    stage: Stage, clients: Sequence[Client], sink: socket.socket, reason: DropReason
) -> tuple[int, float]:
    """Have clients send 120 packets of 1,000 bytes to a peer in all, as fast as they can.

    What does not come is dropped for this reason, each packet once.

    :returns: the bytes that came, and the seconds that it took.
    """
    peer = Address(*sink.getsockname())
    before = stage.pool.collector.stats().drops[reason]
    began = time.monotonic()
    for _ in range(120 // len(clients)):
        for client in clients:
            await client.send(send_indication(peer, bytes(1000)))
    came = dropped = 0
    async with asyncio.timeout(PATIENCE):
        while dropped + came / 1000 < 120:
            await stage.pool.refresh()
            while size := _received(sink):
                came += size
            dropped = stage.pool.collector.stats().drops[reason] - before
    assert dropped + came / 1000 == 120
    return came, time.monotonic() - began


def _received(sink: socket.socket) -> int:
    try:
        return len(sink.recv(2000))
    except BlockingIOError:
        return 0
