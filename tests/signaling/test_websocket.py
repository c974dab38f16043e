"""What aiohttp is left with when a socket has ended."""

import asyncio
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from signaling.websocket import _unlink


async def test_what_comes_after_the_end_begins_no_heartbeat():
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: faults.append(told))
    unlinked, over = asyncio.Event(), asyncio.Event()

    async def serve(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(heartbeat=0.05)
        await ws.prepare(request)
        _unlink(ws, request)
        unlinked.set()
        await over.wait()
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server, ClientSession() as http:
        ws = await http.ws_connect(server.make_url("/"))
        await unlinked.wait()
        for _ in range(4):
            await ws.send_str("I am still here")
            await asyncio.sleep(0.05)
        assert faults == []
        over.set()
