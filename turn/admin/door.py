"""The door of the admin listener: how many may stand in it, and for how long without a question.

It is not for the public, but a cluster's network has many on it: each connection is a descriptor
that a relay would need.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from config.values import Endpoint

MOST = 64
"""Connections of one address: more than Prometheus and all windows of an operator have."""
FIRST_REQUEST = 10.0
"""Seconds that a connection has to ask for something, whole."""
IDLE = 75.0
"""Seconds between two requests."""


class Door(web.BaseSite):
    """Listens for HTTP, and counts who has connected."""

    def __init__(self, runner: web.AppRunner, endpoint: Endpoint) -> None:
        """Prepare to listen. :param runner: set up."""
        super().__init__(runner)
        self._endpoint = endpoint
        self._open: Counter[str] = Counter()
        """Connections, by address."""

    @property
    def name(self) -> str:
        """Where it listens."""
        return str(self._endpoint)

    async def start(self) -> None:
        """Begin to listen. :raises OSError: the address cannot be had."""
        await super().start()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._visitor, *self._endpoint)

    def _visitor(self) -> "Visitor":
        loop = asyncio.get_running_loop()
        return Visitor(
            self._runner.server,
            loop=loop,
            door=self,
            access_log=None,
            keepalive_timeout=IDLE,
            # Not to be unpacked: nobody has to, and what fails there fails with a traceback.
            auto_decompress=False,
        )

    def enter(self, host: str) -> bool:
        """Count one in; False, and not counted, where its address has its share."""
        if self._open[host] >= MOST:
            return False
        self._open[host] += 1
        return True

    def leave(self, host: str) -> None:
        """Count one out that was counted in."""
        self._open[host] -= 1
        if not self._open[host]:
            del self._open[host]


class Visitor(web.RequestHandler):
    """A connection, from its first byte."""

    __slots__ = ("_door", "_host", "_late")

    def __init__(self, *arguments: Any, door: Door, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._door = door
        self._host: str | None = None
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give it a while to ask for something, unless its address has its share."""
        super().connection_made(transport)
        host, *_ = transport.get_extra_info("peername") or ("",)
        if self._door.enter(host):
            self._host = host
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(FIRST_REQUEST, self.force_close)
        else:
            self.force_close()

    def asked(self) -> None:
        """A request has come."""
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is gone."""
        self.asked()
        if self._host is not None:
            self._door.leave(self._host)
            self._host = None
        super().connection_lost(exc)


@web.middleware
async def notice(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell a connection of each of its requests."""
    if isinstance(request.protocol, Visitor):
        request.protocol.asked()
    return await handler(request)
