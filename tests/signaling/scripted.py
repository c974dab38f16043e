"""A server that follows a script: what real ones do in rare moments."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

ASSETS = Path(__file__).parents[2] / "signaling" / "web" / "assets"

Socket = web.WebSocketResponse
Part = Callable[[Socket], Awaitable[None]]


@asynccontextmanager
async def serving(*parts: Part) -> AsyncIterator[str]:
    """A server that plays one part for each connection, and has the browser client; its address."""
    left = iter(parts)

    async def serve(request: web.Request) -> Socket:
        ws = web.WebSocketResponse(protocols=("icebroker.v1",))
        await ws.prepare(request)
        await next(left)(ws)
        return ws

    app = web.Application()
    app.router.add_get("/ws", serve)
    app.router.add_static("/assets", ASSETS)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/ws"
    finally:
        await runner.cleanup()


async def welcome(ws: Socket, session: str, *, resumed: bool = False) -> None:
    """Answer a hello: a session begins, or goes on."""
    assert (await ws.receive_json())["type"] == "hello"
    await ws.send_json(
        {"type": "welcome", "session": session, "secret": "x", "peer": f"of {session}",
         "resumed": resumed, "limits": {"messagesPerSecond": 50, "burst": 100}}
    )  # fmt: skip


async def begins(ws: Socket) -> None:
    """A session, which goes on elsewhere."""
    await welcome(ws, "one")
    await ws.close(code=4000)


async def hears_nothing(ws: Socket) -> None:
    """A node that sleeps: what is said to it may be heard later."""
    transport = ws._req.transport if ws._req is not None else None
    assert transport is not None
    await ws.receive()
    transport.abort()


async def takes_no_token(ws: Socket) -> None:
    """A server that has lost the session, and finds the token expired."""
    assert (await ws.receive_json())["type"] == "hello"
    await ws.close(code=4503, message=b"the join token is not good")


async def is_replaced(ws: Socket) -> None:
    """A session that goes on, until somebody else has it."""
    await welcome(ws, "one", resumed=True)
    await ws.close(code=4501)
