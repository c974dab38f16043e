"""The Python client that we ship, used as a back end does, with a log for the checker."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from signaling.client import Client, SignalingError
from tests.chaos.checker import Line, What, complaints, present
from tests.chaos.talker import TO_ALL
from tests.chaos.wire import Wire


class Balancer(Wire):
    """One address for several nodes: each connection goes to any of those that listen."""

    def __init__(self, targets: Sequence[int], dice: random.Random) -> None:
        """Prepare. :param targets: the nodes' ports on loopback."""
        super().__init__(0)
        self._targets = targets
        self._dice = dice

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for target in self._dice.sample(self._targets, len(self._targets)):
            with suppress(ConnectionRefusedError):
                return await asyncio.open_connection("127.0.0.1", target)
        raise ConnectionRefusedError("no node listens")


class Shipped:
    """One client in one room, writing to whom it sees there."""

    def __init__(self, name: str, url: str, room: str, dice: random.Random) -> None:
        self.name = name
        self.log: list[Line] = []
        self.refusals: list[str] = []
        """Codes of the errors that its application saw."""
        self.talking = True
        self._room = room
        self._dice = dice
        self._client = Client(url, name=name)
        self._began = ""
        """The peer id whose beginning the log has."""
        self._busy = False
        self._others: set[str] = set()
        self._for: set[str] = set()
        """Peers that the message under way is for."""

    @property
    def peer(self) -> str:
        """Its id."""
        return self._client.peer

    @property
    def idle(self) -> bool:
        """Whether it has an answer to all that it asked, and its log is up to date."""
        return not self._busy and self._began == self.peer

    async def run(self) -> None:
        """Talk until cancelled. :raises AssertionError: events were lost."""
        async with self._client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            await self._enter()
            for number in range(1 << 30):
                await asyncio.sleep(self._dice.uniform(0.005, 0.08))
                if self.talking and self._others:
                    await self._say(number)

    async def _say(self, number: int) -> None:
        to = None if self._dice.random() < TO_ALL else self._dice.choice(sorted(self._others))
        self._for = {to} if to else set(self._others)
        self._busy = True
        try:
            await self._client.message({"sender": self.name, "number": number}, to)
        except SignalingError as error:
            self.refusals.append(error.code)
        else:
            self.log += [Line("sent", each, self.name, number) for each in self._for]
        finally:
            self._busy = False

    async def _enter(self) -> None:
        joined = await self._join()
        if self._began != self.peer:
            self._begin(joined)

    async def _join(self) -> dict[str, Any]:
        while True:
            try:
                return await self._client.join(self._room)
            except SignalingError as error:
                self.refusals.append(error.code)
                await asyncio.sleep(0.3)

    def _begin(self, joined: dict[str, Any]) -> None:
        self._began = self.peer
        self._others.clear()
        self.log.append(Line("began", self.peer))
        for peer in joined["peers"]:
            self._note("roster", peer["id"])

    async def _read(self) -> None:
        async for event in self._client.events():
            kind = event["type"]
            assert kind != "lost", event
            if kind == "peer" and event["event"] != "update":
                self._note(event["event"], event["id"])
            elif kind == "message":
                data = event["data"]
                self.log.append(Line("got", event["from"], data["sender"], data["number"]))
            elif kind == "restarted" and event["joined"]:
                self._begin(event["joined"][0])
            elif kind == "restarted":
                await self._enter()

    def _note(self, what: What, peer: str) -> None:
        self.log.append(Line(what, peer))
        if what in {"roster", "join"}:
            self._others.add(peer)
        elif what == "leave":
            self._others.discard(peer)
            self._for.discard(peer)


def wrongs(clients: Sequence[Shipped]) -> list[str]:
    """Promises that are not kept, and who does not see exactly those who are there."""
    there = {client.peer for client in clients}
    found = complaints({client.name: client.log for client in clients})
    found += [
        f"{client.name} {client.peer} sees {sorted(present(client.log))}"
        for client in clients
        if present(client.log) != there - {client.peer}
    ]
    return found + [
        f"{client.name} waits; it was refused {client.refusals[-3:]}, ends with {client.log[-3:]}"
        for client in clients
        if not client.idle
    ]


@asynccontextmanager
async def shipped(
    count: int, ports: Sequence[int], room: str, dice: random.Random
) -> AsyncIterator[list[Shipped]]:
    """Clients that talk to each other by way of a balancer before these ports."""
    balancer = Balancer(ports, dice)
    await balancer.start()
    url = f"ws://127.0.0.1:{balancer.port}/ws"
    clients = [Shipped(f"s{n}", url, room, random.Random(dice.random())) for n in range(count)]
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(client.run()) for client in clients]
            yield clients
            for task in running:
                task.cancel()
    finally:
        await balancer.stop()
