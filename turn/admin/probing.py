"""``GET /probe?target=URL``: one server, tried as the doctor does, as Prometheus asks for it.

Only targets that the configuration names are tried, and only for who has the token: the listener
is no one's port scanner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from turn.admin.guard import ApiError
from turn.metrics import CONTENT_TYPE

Probe = Callable[[str], Awaitable[bytes]]
"""Tries a server by its URL; gives a page of metrics."""
MOST_WAITING = 4
PATIENCE = 25.0
"""Seconds that a probe may take; Prometheus gives up after its own ``scrape_timeout``."""


class Probing:
    """Tries one target at a time: two would take each other's quota and bandwidth."""

    def __init__(self, targets: Sequence[str], probe: Probe | None) -> None:
        """Prepare. :param probe: None: there is none in this process."""
        self.targets = tuple(targets)
        """May be replaced at any time."""
        self._probe = probe
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def serve(self, request: web.Request) -> web.Response:
        """Answer a scrape. :raises ApiError: 404, 429, 504."""
        target = request.query.get("target", "")
        if self._probe is None or target not in self.targets:
            raise ApiError(404, f"{target!r} is not in admin.probe_targets")
        if self._waiting >= MOST_WAITING:
            raise ApiError(429, "probes wait already; raise scrape_interval")
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE), self._turn:
                body = await self._probe(target)
        except TimeoutError:
            raise ApiError(504, f"the probe took longer than {PATIENCE:.0f} s") from None
        finally:
            self._waiting -= 1
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
