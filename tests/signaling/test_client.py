"""The Python client against a server that follows a script: what real ones do in rare moments."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from signaling.client import Client, SignalingError
from tests.patience import until

Socket = web.WebSocketResponse
Part = Callable[[Socket], Awaitable[None]]


@asynccontextmanager
async def serving(*parts: Part) -> AsyncIterator[str]:
    """A server that plays one part for each connection; its address."""
    left = iter(parts)

    async def serve(request: web.Request) -> Socket:
        ws = web.WebSocketResponse(protocols=("icebroker.v1",))
        await ws.prepare(request)
        await next(left)(ws)
        return ws

    app = web.Application()
    app.router.add_get("/ws", serve)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"
    finally:
        await runner.cleanup()


async def welcome(ws: Socket, session: str) -> None:
    """Answer a hello: a session begins."""
    assert (await ws.receive_json())["type"] == "hello"
    await ws.send_json(
        {"type": "welcome", "session": session, "secret": "x", "peer": f"of {session}",
         "resumed": False, "limits": {"messagesPerSecond": 50, "burst": 100}}
    )  # fmt: skip


async def test_what_was_given_up_with_its_session_is_not_sent_in_the_next_one():
    """It was to be tried again a little later, when the session was lost and its caller told so."""
    heard: list[Any] = []

    async def refuses(ws: Socket) -> None:
        await welcome(ws, "one")
        asked = await ws.receive_json()
        await ws.send_json(
            {"type": "error", "id": asked["id"], "code": "unavailable", "message": "",
             "retryable": True}
        )  # fmt: skip
        await ws.close(code=4003)

    async def takes(ws: Socket) -> None:
        await welcome(ws, "two")
        async for frame in ws:
            message = json.loads(frame.data)
            heard.append(message.get("data"))
            await ws.send_json({"type": "ok", "id": message["id"], "status": "delivered"})

    async with serving(refuses, takes) as address, Client(address) as client:
        with pytest.raises(SignalingError) as lost:
            await client.message("first")
        assert lost.value.code == "session_lost"
        await client.message("second")
        await until(lambda: not client._tasks)  # whatever was to be sent later has been
        await client.message("third")
        assert heard == ["second", "third"]


async def test_what_nobody_waits_for_any_more_is_not_sent_again():
    heard: list[Any] = []

    async def refuses(ws: Socket) -> None:
        await welcome(ws, "one")
        async for frame in ws:
            message = json.loads(frame.data)
            heard.append(message.get("data"))
            if message["data"] == "first":
                await ws.send_json(
                    {"type": "error", "id": message["id"], "code": "unavailable", "message": "",
                     "retryable": True}
                )  # fmt: skip
            else:
                await ws.send_json({"type": "ok", "id": message["id"], "status": "delivered"})

    async with serving(refuses) as address, Client(address) as client:
        asked = asyncio.ensure_future(client.message("first"))
        await until(lambda: client._tasks)  # it was refused, and is to be tried again
        asked.cancel()
        await client.message("second")
        await until(lambda: not client._tasks)
        await client.message("third")
        assert heard == ["first", "second", "third"]
