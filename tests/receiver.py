"""An application's back end: a real HTTP server that gets webhooks and checks their signatures."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.patience import PATIENCE

SECRET = "the webhook secret of the tests"


class Receiver:
    """What it got, in the order in which it came."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.requests: list[tuple[dict[str, str], bytes]] = []
        """The headers and bodies that those came by."""
        self.answer: Callable[[dict[str, Any]], Awaitable[web.Response]] = self._take
        """What is answered; a test may have another."""

    async def handle(self, request: web.Request) -> web.Response:
        """Take one."""
        body = await request.read()
        check(request.headers, body)
        message = json.loads(body)
        self.got.append(message)
        self.requests.append((dict(request.headers), body))
        self.ids.append(request.headers["webhook-id"])
        return await self.answer(message)

    async def _take(self, _: dict[str, Any]) -> web.Response:
        return web.Response(status=204)

    def says(self, status: int = 200, **body: Any) -> None:
        """Answer this from now on."""

        async def answer(_: dict[str, Any]) -> web.Response:
            return web.json_response(body, status=status)

        self.answer = answer

    def told(self) -> list[str]:
        """What happened, in short, each once."""
        lines = {
            event_id: " ".join(
                filter(None, (m["type"], m["data"].get("name"), m["data"].get("reason")))
            )
            for event_id, m in zip(self.ids, self.got, strict=True)
        }
        return list(lines.values())

    def history(self) -> list[str]:
        """The same in the order in which it happened, by which the ids sort."""
        told = dict(zip(dict.fromkeys(self.ids), self.told(), strict=True))
        return [told[event_id] for event_id in sorted(told)]

    async def until(self, *lines: str, within: float = PATIENCE) -> None:
        """Wait until exactly this was told."""
        try:
            async with asyncio.timeout(within):
                while self.told() != list(lines):  # noqa: ASYNC110 - asked as it is
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(self.told()) from None


def check(headers: Any, body: bytes) -> None:
    """See that a request is signed as Standard Webhooks says, and was just now."""
    event_id, at = headers["webhook-id"], headers["webhook-timestamp"]
    signed = f"{event_id}.{at}.".encode() + body
    expected = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
    assert f"v1,{expected}" in headers["webhook-signature"].split()
    assert abs(time.time() - int(at)) < 30


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A running one."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hooks", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/hooks"
    try:
        yield made
    finally:
        await runner.cleanup()
