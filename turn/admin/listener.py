"""The admin listener of a process: metrics, health, the API and the operator's page."""

import asyncio
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from config.schema import AdminSettings
from turn.admin.actions import Actions, only
from turn.admin.document import document
from turn.admin.door import Door, notice
from turn.admin.drain import Drain
from turn.admin.guard import OFF, ApiError, Guard
from turn.admin.journal import OF_THE_PROCESS, Journal
from turn.admin.lists import Lists
from turn.admin.operation import Handler, Operation, Parameter
from turn.admin.probing import Probe, Probing
from turn.admin.service import Control, Service
from turn.admin.stream import EventStream
from turn.metrics import CONTENT_TYPE, ProcessCollector, exposition

log = structlog.get_logger("admin")

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": "index.html",
    **{
        f"/operator/{name}": name
        for name in ("operator.css", "icon.svg", "operator.js", "api.js", "draw.js", "lists.js",
                     "load.js")
    },
}  # fmt: skip
LARGEST_BODY = 16 << 10
PARAMETER = re.compile(r"\{(\w+)\}")


class Admin:
    """An HTTP server for operators; it is not for the public."""

    def __init__(
        self,
        settings: AdminSettings,
        services: Sequence[Service],
        journal: Journal,
        control: Control,
        probe: Probe | None = None,
    ) -> None:
        self._listen = settings.listen
        self._services = services
        self._journal = journal
        self._process = ProcessCollector(
            version("icebroker"),
            lambda: any(service.draining for service in services),
            lambda: control.reloaded,
        )
        loopback = {endpoint.host for endpoint in settings.listen if endpoint.is_loopback}
        self._guard = Guard("", loopback)
        self._drain = Drain(services)
        self._kinds = sorted({*OF_THE_PROCESS, *(it for each in services for it in each.events)})
        self._stream = EventStream(journal)
        self._probing = Probing(settings.probe_targets, probe)
        actions = Actions(services, journal, control, self._drain)
        self.operations = [*actions.operations(), self._events()]
        for service in services:
            for collection in service.collections:
                self.operations += Lists(collection, actions).operations()
        self._document = msgspec.json.encode(document(self.operations))
        app = web.Application(
            middlewares=[notice, self._guard.middleware], client_max_size=LARGEST_BODY
        )
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/api/v1/openapi.json", self._openapi),
                web.get("/probe", self._probing.serve),
                *(web.get(path, self._file(PAGE / name)) for path, name in FILES.items()),
                *(web.route(it.method, route_of(it.path), it.handler) for it in self.operations),
            ]
        )
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0)
        self.reload(settings)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once started: the first of its addresses."""
        host, port = self._runner.addresses[0][:2]
        return host, port

    async def start(self) -> None:
        """Begin to serve. :raises OSError: the address cannot be listened on."""
        await self._runner.setup()
        for endpoint in self._listen:
            try:
                await Door(self._runner, endpoint).start()
            except OSError as error:
                await self._runner.cleanup()
                raise OSError(
                    error.errno, f"metrics cannot listen on {endpoint}: {error.strerror}"
                ) from None
        open_to_others = [str(place) for place in self._listen if not place.is_loopback]
        if self._guard.on and open_to_others:
            log.warning("admin.token travels in clear text; keep this network to yourself",
                        listen=", ".join(open_to_others))  # fmt: skip

    def reload(self, settings: AdminSettings) -> None:
        """Go on with another token, and other targets to probe."""
        self._probing.targets = settings.probe_targets
        self._guard.set_token(settings.token.get_secret_value())
        self._journal.switch(on=self._guard.on)

    async def drain(self, _: float) -> None:
        """Nothing: it answers until the end, so that a drain can be watched."""

    async def stop(self) -> None:
        """Stop serving."""
        self._drain.stop()
        self._journal.switch(on=False)
        await self._runner.cleanup()

    def _events(self) -> Operation:
        about = f"Only these kinds of events, with commas between: {', '.join(self._kinds)}."
        kinds = Parameter("kinds", about)
        return Operation(
            "GET", "/api/v1/events", "events",
            "Events as they happen (Server-Sent Events); Last-Event-ID continues a stream.",
            self._get_events, None, (kinds,), refusals=(400, 429),
        )  # fmt: skip

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        wanted = only(request, "kinds").get("kinds", "").split(",")
        kinds = frozenset(filter(None, map(str.strip, wanted)))
        for kind in kinds.difference(self._kinds):
            raise ApiError(400, f"no kind {kind!r}; there are {', '.join(self._kinds)}")
        return await self._stream.serve(request, kinds)

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")

    def _file(self, path: Path) -> Handler:
        async def handle(_: web.Request) -> web.StreamResponse:
            if not self._guard.on:
                raise web.HTTPNotFound(text=f"{OFF}\n")
            return web.FileResponse(path)

        return handle

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


def route_of(path: str) -> str:
    """A path as aiohttp matches it: a parameter is whatever stands between two slashes.

    Its own pattern leaves out braces, and users choose names: nobody could revoke one with a brace.
    """
    return PARAMETER.sub(r"{\1:[^/]+}", path)
