"""Sockets of PeerJS clients, frame by frame, at one node or at two."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest

from tests.patience import PATIENCE
from tests.signaling.live import signaling, url

SECRET = "a secret of the PeerJS tests, of 32 bytes"


class Wire:
    """A client's socket."""

    def __init__(self, ws):
        self.ws = ws

    async def say(self, kind, dst=None, payload=None, **more):
        await self.ws.send_str(json.dumps({"type": kind, "dst": dst, "payload": payload, **more}))

    async def hear(self, within=PATIENCE):
        async with asyncio.timeout(within):
            frame = await self.ws.receive()
        assert frame.type is aiohttp.WSMsgType.TEXT, frame
        message = json.loads(frame.data)
        message.pop("seq", None)
        return message

    async def silent(self, seconds=0.3):
        with pytest.raises(TimeoutError):
            await self.hear(seconds)

    async def closed(self):
        async with asyncio.timeout(PATIENCE):
            while (await self.ws.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        return self.ws.close_code

    def lose(self):
        """Lose the connection without a word."""
        self.ws._response.connection.transport.abort()


class Net:
    """One or two nodes, and sockets to them."""

    def __init__(self, http, nodes):
        self.http = http
        self.nodes = nodes

    async def connect(self, name, node=0, token="t0ken", key="peerjs", path="/peerjs/peerjs"):
        """A socket as the client opens it."""
        query = {"key": key, "id": name, "token": token, "version": "1.5.5"}
        service = self.nodes[node % len(self.nodes)]
        return Wire(await self.http.ws_connect(url(service, path), params=query))

    async def open(self, name, node=0, **options):
        """A socket that has heard OPEN."""
        wire = await self.connect(name, node, **options)
        assert await wire.hear() == {"type": "OPEN"}
        return wire

    async def get(self, path, node=0, **headers):
        async with self.http.get(url(self.nodes[node], path), headers=headers) as response:
            return response.status, await response.text(), response.headers


@asynccontextmanager
async def net(redis=None, **settings):
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(signaling(redis, peerjs=True, **settings))
            for _ in range(2 if redis else 1)
        ]
        yield Net(await stack.enter_async_context(aiohttp.ClientSession()), nodes)
