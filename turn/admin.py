"""The admin listener of a process: /metrics, /healthz, /readyz of whichever services it runs."""

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

from aiohttp import web

from config.schema import AdminSettings
from turn.metrics import CONTENT_TYPE, Collector, ProcessCollector, exposition


class Service(Protocol):
    """What the admin listener asks of a service."""

    name: str
    collector: Collector
    draining: bool

    def ready(self) -> list[str]:
        """What keeps it from being sent traffic, one sentence each; empty: nothing."""

    async def refresh(self) -> None:
        """Have the collector tell what is true now, where it does not by itself."""


class Admin:
    """An HTTP server for operators; it is not for the public."""

    def __init__(self, settings: AdminSettings, services: Sequence[Service]) -> None:
        self._listen = settings.listen
        self._services = services
        self._process = ProcessCollector(
            version("icebroker"), lambda: any(service.draining for service in services)
        )
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started."""
        host, port = self._runner.addresses[0][:2]
        return host, port

    async def start(self) -> None:
        """Begin to serve. :raises OSError: the address cannot be listened on."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, *self._listen).start()
        except OSError as error:
            await self._runner.cleanup()
            raise OSError(
                error.errno, f"metrics cannot listen on {self._listen}: {error.strerror}"
            ) from None

    async def drain(self, _: float) -> None:
        """Nothing: it answers until the end, so that a drain can be watched."""

    async def stop(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        await asyncio.gather(*(service.refresh() for service in self._services))
        collectors = [self._process, *(service.collector for service in self._services)]
        return web.Response(body=exposition(collectors), headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        problems = {service.name: service.ready() for service in self._services}
        ready = not any(problems.values())
        return web.json_response(
            {"ready": ready, "problems": problems}, status=200 if ready else 503
        )
