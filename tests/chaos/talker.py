"""A client that talks to everyone and writes down what it sees, for the checker.

Not the client that we ship: it speaks the protocol by itself, goes to whichever node answers, and
drops its socket when it is told to.
"""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from signaling.protocol import SUBPROTOCOL
from tests.chaos.checker import Line

SILENCE = 1.5
"""Seconds without a word after which a node counts as dead for a client: quicker than any real
one, so that they move a lot."""
FAULTS = (aiohttp.ClientError, OSError, TimeoutError, ConnectionError)
TO_ALL = 0.2
"""The share of messages that are for everyone."""
MOST_OPEN = 50
"""Messages for everyone that are not answered."""
JUMP = 1_000_000
"""By which the numbers of events may jump, after Redis was away."""


class Talker:
    """One client."""

    def __init__(self, name: str, room: str, urls: Sequence[str], dice: random.Random) -> None:
        self.name = name
        self.log: list[Line] = []
        self.peer = ""
        self.refusals: list[str] = []
        """Codes of the retryable errors that it got."""
        self.talking = True
        self.patience = SILENCE
        self.partners: set[str] | None = None
        """Peers whom it writes to; None: everyone. What is for all is waited for only with None."""
        self.welcomes = 0
        self._room = room
        self._urls = urls
        self._dice = dice
        self._session: dict[str, str] = {}
        self._seen = self._acknowledged = 0
        self._numbers = itertools.count()
        self._others: set[str] = set()
        self._frame: dict[str, Any] | None = None
        """The request that has no answer yet."""
        self._for: set[str] = set()
        """Peers that it is for."""
        self._open: dict[str, tuple[dict[str, Any], set[str]]] = {}
        """The same of those that are not waited for."""
        self.told_all = 0
        """Messages for everyone that the server has answered for."""
        self.at = ""
        """The URL that it connected to last."""
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Talker":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.vanish()

    @property
    def gone(self) -> bool:
        """Whether it has vanished."""
        return self._task is None

    @property
    def joined(self) -> bool:
        """Whether it is connected and in the room."""
        joining = self._frame is not None and self._frame["type"] == "join"
        return self._ws is not None and not self._ws.closed and not joining

    @property
    def idle(self) -> bool:
        """Whether it is in the room, and waits for no answer."""
        return self.joined and self._frame is None and not self._open

    @property
    def sessions(self) -> int:
        """How many sessions it has begun."""
        return sum(line.what == "began" for line in self.log)

    @property
    def acknowledged(self) -> int:
        """Messages of its own that the server has answered for."""
        return sum(line.what == "sent" for line in self.log)

    @property
    def waits_for(self) -> dict[str, Any] | None:
        """The request that has no answer yet."""
        return self._frame

    def drop(self) -> None:
        """Lose the socket; it comes back by itself."""
        if self._ws is not None:
            _abort(self._ws)

    async def vanish(self) -> None:
        """Go without a word, and never come back."""
        if self._task is not None:
            self.log.append(Line("ended"))
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()  # what went wrong before

    async def _run(self) -> None:
        silent = ""
        async with aiohttp.ClientSession() as http:
            # A TaskGroup of Python 3.11 raises the error of a task in place of a cancellation that
            # came at the same moment.
            while not self.gone:
                others = [url for url in self._urls if url != silent]
                self.at, silent = self._dice.choice(others or self._urls), ""
                try:
                    await self._connect(http, self.at)
                except* TimeoutError:
                    silent = self.at
                except* FAULTS:
                    pass
                await asyncio.sleep(self._dice.uniform(0.05, 0.3))

    async def _connect(self, http: aiohttp.ClientSession, url: str) -> None:
        """One socket from beginning to end. :raises FAULTS:"""
        async with asyncio.timeout(self.patience):
            ws = await http.ws_connect(url, protocols=(SUBPROTOCOL,))
        try:
            hello: dict[str, Any] = {"type": "hello", "name": self.name}
            if self._session:
                hello["resume"] = {**self._session, "seq": self._seen}
            await ws.send_json(hello)
            async with asyncio.TaskGroup() as tasks:
                talking = tasks.create_task(self._talk(ws))
                await self._listen(ws)
                talking.cancel()
        finally:
            self._ws = None
            _abort(ws)  # without a close frame: a node that sleeps would not answer it

    async def _listen(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            async with asyncio.timeout(self.patience):
                frame = await ws.receive()
            if frame.type is not aiohttp.WSMsgType.TEXT:
                return
            message = json.loads(frame.data)
            if message["type"] == "error" and "id" not in message:
                self.refusals.append(message["code"])
                return
            await self._take(ws, message)

    async def _talk(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """One request at a time, and a sign of life."""
        while True:
            await asyncio.sleep(self._dice.uniform(0.01, 0.1))
            if ws is not self._ws:
                continue  # not welcomed yet
            await ws.send_json({"type": "ping", "t": 0})
            if self._acknowledged < self._seen:
                self._acknowledged = self._seen
                await ws.send_json({"type": "ack", "seq": self._seen})
            listeners = self._others if self.partners is None else self._others & self.partners
            if self._frame is None and self.talking and listeners:
                await self._say(ws, next(self._numbers), listeners)

    async def _say(
        self, ws: aiohttp.ClientWebSocketResponse, number: int, listeners: set[str]
    ) -> None:
        data = {"sender": self.name, "number": number}
        frame: dict[str, Any] = {"type": "message", "id": f"n{number}", "data": data}
        to_all = self._dice.random() < TO_ALL and len(self._open) < MOST_OPEN
        if to_all and self.partners is not None:
            self._open[frame["id"]] = frame, set(self._others)
        else:
            if not to_all:
                frame["to"] = self._dice.choice(sorted(listeners))
            self._frame, self._for = frame, set(self._others) if to_all else {frame["to"]}
        await ws.send_json(frame)

    # What arrives --------------------------------------------------------------------------

    async def _take(self, ws: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> None:
        kind, seq = message["type"], message.get("seq", 0)
        if seq:
            follows = seq == self._seen + 1 or seq >= self._seen + JUMP
            assert follows, f"{self.name} got {seq} after {self._seen}"
            self._seen = seq
        if kind == "welcome":
            await self._welcome(ws, message)
        elif kind == "joined":
            self._frame = None
            for peer in message["peers"]:
                self._note("roster", peer["id"])
        elif kind == "peer" and message["event"] != "update":
            self._note(message["event"], message["id"])
        elif kind == "goaway":
            asyncio.get_running_loop().call_later(
                message["deadline"] * self._dice.random(), _abort, ws
            )
        elif kind == "message":
            data = message["data"]
            self.log.append(Line("got", message["from"], data["sender"], data["number"]))
        elif kind in {"ok", "error"} and message["id"] in self._open:
            assert kind == "ok", message
            self._sent(*self._open.pop(message["id"]))
        elif kind in {"ok", "error"} and self._frame and message["id"] == self._frame["id"]:
            await self._answered(ws, message)

    async def _welcome(self, ws: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> None:
        self.welcomes += 1
        self._ws = ws
        if not message["resumed"]:
            self._session = {"session": message["session"], "secret": message["secret"]}
            self.peer, self._seen, self._acknowledged = message["peer"], 0, 0
            self._others.clear()
            self._open.clear()
            self.log.append(Line("began", self.peer))
            self._frame = {"type": "join", "id": f"join {self.peer}", "room": self._room}
        for frame in [*(frame for frame, _ in self._open.values()), self._frame]:
            if frame is not None:
                await ws.send_json(frame)

    async def _answered(self, ws: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> None:
        assert self._frame is not None
        if message["type"] == "error" and message["retryable"]:
            self.refusals.append(message["code"])
            await asyncio.sleep(0.1)
            await ws.send_json(self._frame)
            return
        if message["type"] == "ok":
            self._sent(self._frame, self._for)
        else:  # whom it was for has left meanwhile
            assert message["code"] == "not_found", message
        self._frame = None

    def _sent(self, frame: dict[str, Any], to: set[str]) -> None:
        data = frame["data"]
        self.told_all += "to" not in frame
        self.log += [Line("sent", peer, data["sender"], data["number"]) for peer in to]

    def _note(self, what: Any, peer: str) -> None:
        self.log.append(Line(what, peer))
        if what in {"roster", "join"}:
            self._others.add(peer)
        elif what == "leave":
            self._others.discard(peer)
            for waited_for in [self._for, *(peers for _, peers in self._open.values())]:
                waited_for.discard(peer)


def _abort(ws: aiohttp.ClientWebSocketResponse) -> None:
    connection = ws._response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    ws._response.close()


@asynccontextmanager
async def talkers(
    names: Sequence[str], room: str, urls: Sequence[str], dice: random.Random
) -> AsyncIterator[list[Talker]]:
    """Clients that talk to each other; on leaving they vanish."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Talker(name, room, urls, random.Random(dice.random())))
            for name in names
        ]
