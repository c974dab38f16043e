"""Signaling with real sockets on loopback, in this process."""

import asyncio
import json
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import aiohttp
import jwt
from pydantic import SecretStr

from config.schema import RedisSettings
from config.signaling import SignalingSettings
from signaling.ice import IceProvider, Server
from signaling.protocol import SUBPROTOCOL
from signaling.server import SignalingService
from signaling.stats import Tell, to_nobody
from tests.patience import PATIENCE
from tests.redis_server import RedisServer

TOKEN_SECRET = "the secret of the join tokens, 32+"
RELAY_SECRET = "the relay's secret, of this test"
SERVERS = (Server(("stun:127.0.0.1:3478",)), Server(("turn:127.0.0.1:3478?transport=udp",)))
default_broker: ContextVar[RedisSettings | None] = ContextVar("default_broker", default=None)
"""Of the services that a test starts; a fixture may run a whole file over Redis by it."""


def on(server: RedisServer) -> RedisSettings:
    """The settings of nodes that share a Redis, and nothing with the nodes of other tests."""
    prefix = f"test-{secrets.token_hex(4)}"
    return RedisSettings(url=SecretStr(server.url), prefix=prefix)


@asynccontextmanager
async def signaling(
    redis: RedisSettings | None = None, /, tell: Tell = to_nobody, **changes: Any
) -> AsyncIterator[SignalingService]:
    """A running service.

    :param redis: its broker; None: whatever ``default_broker`` says.
    :param tell: hears of what happens.
    """
    settings = SignalingSettings.model_validate({"listen": "127.0.0.1:0", **changes})
    ice = IceProvider(lambda: SERVERS, RELAY_SECRET, int(settings.ice_ttl), settings.ice_tenant)
    service = SignalingService(settings, ice, redis or default_broker.get(), tell)
    service._websockets.most_lag = math.inf  # this machine may be busy with other tests
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


def url(service: SignalingService, path: str = "", scheme: str = "http") -> str:
    """A URL of the service."""
    host, port = service.addresses[0]
    return f"{scheme}://{host}:{port}{path}"


class Raw:
    """A WebSocket that says exactly what it is told to."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws

    async def say(self, **message: Any) -> None:
        """Send a message."""
        await self.ws.send_str(json.dumps(message))

    async def hear(self, *kinds: str) -> dict[str, Any]:
        """The next message, or the next of these kinds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = await self.ws.receive()
                assert frame.type is aiohttp.WSMsgType.TEXT, frame
                message: dict[str, Any] = json.loads(frame.data)
                if not kinds or message["type"] in kinds:
                    return message

    async def closed(self) -> int | None:
        """Wait for the end; its code."""
        async with asyncio.timeout(PATIENCE):
            while (await self.ws.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        return self.ws.close_code

    async def hello(self, **fields: Any) -> dict[str, Any]:
        """Begin; the welcome."""
        await self.say(type="hello", **fields)
        return await self.hear("welcome")

    async def join(self, room: str) -> dict[str, Any]:
        """Enter a room."""
        await self.say(type="join", id=f"join {room}", room=room)
        return await self.hear("joined", "error")


@asynccontextmanager
async def sockets(service: SignalingService) -> AsyncIterator[Any]:
    """Opens sockets to a service; all are closed in the end."""
    opened: list[Raw] = []
    async with aiohttp.ClientSession() as http:

        async def connect(**options: Any) -> Raw:
            ws = await http.ws_connect(url(service, "/ws"), protocols=(SUBPROTOCOL,), **options)
            opened.append(Raw(ws))
            return opened[-1]

        try:
            yield connect
        finally:
            for one in opened:
                one.ws._response.close()


async def pair(
    connect: Callable[[], Awaitable[Raw]],
) -> tuple[Raw, Raw, dict[str, Any], dict[str, Any]]:
    """Two sockets in one room, and what each was welcomed with."""
    one, two = await connect(), await connect()
    first, second = await one.hello(name="Ada"), await two.hello(name="Bob")
    await one.join("r")
    await two.join("r")
    await one.hear("peer")
    return one, two, first, second


def token(room: str = "r", **claims: Any) -> str:
    """A join token, as a back end signs it."""
    return jwt.encode({"room": room, "exp": int(time.time()) + 60, **claims}, TOKEN_SECRET, "HS256")
