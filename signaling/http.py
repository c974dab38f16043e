"""HTTP: the WebSocket, ``GET /ice``, the browser client and the pages."""

import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from aiohttp import hdrs, web

from signaling.admission import Admission, Undecided
from signaling.auth import BadToken
from signaling.door import notice
from signaling.ice import IceProvider
from signaling.origin import Caller, OriginPolicy
from signaling.peerjs import PeerJs
from signaling.stats import Tell, to_nobody
from signaling.websocket import WebSockets
from turn.auth.ephemeral import name_in

log = structlog.get_logger("signaling")

WEB = Path(__file__).parent / "web"
PAGES = {"/": "index.html", "/trickle": "trickle.html"}
SHARED = {"/client.js": "client.js", "/client.d.ts": "client.d.ts"}
"""Files that pages of other sites may load too."""
FORWARDED = ("X-Forwarded-For", "X-Forwarded-Proto")
MOST_TOLD = 64
"""Origins whose refusal is logged, once each: a browser tells its page nothing of the reason."""

SECURITY_HEADERS = {
    "Server": "icebroker",  # without the versions of what it is made of
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "media-src 'self' blob: mediastream:; connect-src 'self' ws: wss:; font-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Http:
    """The public HTTP application."""

    def __init__(
        self,
        websockets: WebSockets,
        ice: IceProvider,
        admission: Admission,
        origins: OriginPolicy,
        peerjs: PeerJs,
        *,
        pages: bool,
        tell: Tell = to_nobody,
    ) -> None:
        """Serve it. :param tell: hears of who was refused credentials, and why."""
        self._websockets = websockets
        self._ice = ice
        self._admission = admission
        self._origins = origins
        self._peerjs = peerjs
        self._tell_operators = tell
        self._told: set[str] = set()
        self._undecided: Counter[str] = Counter()
        """Requests of an address of which nobody has said yet whether they are allowed."""
        self.app = web.Application(middlewares=[notice, _security_headers])
        self.app.add_routes([web.get("/ws", self._ws), web.get("/ice", self._get_ice)])
        self.app.router.add_options("/ice", self._preflight)
        # A client's `path` is "/peerjs" or "/"; what follows has the key before it, often "peerjs".
        for path in ("/peerjs", "/peerjs/peerjs"):
            self.app.router.add_get(path, self._peerjs_ws)
        for path in ("/peerjs/{what:id|peers}", "/peerjs/{key}/{what:id|peers}"):
            self.app.router.add_get(path, self._peerjs_get)
        for path, name in SHARED.items():
            self.app.router.add_get(path, _file(WEB / name, shared=True))
        if pages:
            for path, name in PAGES.items():
                self.app.router.add_get(path, _file(WEB / name))
            self.app.router.add_get("/favicon.ico", _file(WEB / "assets" / "icon.svg"))
        for asset in sorted((WEB / "assets").rglob("*.*")):
            # One by one: what a stranger writes is never a part of a file's name.
            self.app.router.add_get(f"/{asset.relative_to(WEB).as_posix()}", _file(asset))

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        caller = self._caller(request)
        if caller is None:
            return _refused_origin()
        return await self._websockets.serve(request, caller.network)

    async def _peerjs_ws(self, request: web.Request) -> web.StreamResponse:
        caller = self._caller(request)
        if not self._peerjs.settings.peerjs:
            raise web.HTTPNotFound
        if caller is None:
            return _refused_origin()
        dialogue = self._peerjs.dialogue(request)
        return await self._websockets.serve(request, caller.network, dialogue)

    async def _peerjs_get(self, request: web.Request) -> web.Response:
        if not self._peerjs.settings.peerjs:
            raise web.HTTPNotFound
        caller = self._caller(request)
        if caller is None:
            return _refused_origin()
        key = request.match_info.get("key", "peerjs")
        if request.match_info["what"] == "id":
            response = self._peerjs.get_id(key)
        else:
            with self._asking(caller.network):
                response = await self._peerjs.get_peers(key, _token_of(request))
        response.headers.update(self._cors(request))
        return response

    async def _get_ice(self, request: web.Request) -> web.Response:
        headers = self._cors(request)
        caller = self._caller(request)
        if caller is None:
            return web.json_response({"error": "forbidden_origin"}, status=403)
        name = secrets.token_hex(8)
        token, room = _token_of(request), request.query.get("room", "")
        try:
            with self._asking(caller.network):
                claims = await self._admission.admit(token, room)
        except BadToken as error:
            why = f"/ice: the join token is not good: {error}"
            self._tell_operators("session_refused", {"code": "unauthorized", "why": why})
            headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
            return web.json_response({"error": "unauthorized"}, status=401, headers=headers)
        except Undecided:
            headers[hdrs.RETRY_AFTER] = "2"
            return web.json_response({"error": "unavailable"}, status=503, headers=headers)
        if claims and claims.subject:
            name = claims.subject
        grant = self._ice.issue(name_in(self._ice.tenant, name), time.time())
        response = web.json_response(grant.document(), headers=headers)
        for link in grant.links():
            response.headers.add(hdrs.LINK, link)
        return response

    @contextmanager
    def _asking(self, network: str) -> Iterator[None]:
        """Have an address ask no more at a time than it may have sockets that said no hello.

        A back end that decides for all would be busy with it. :raises HTTPTooManyRequests:
        """
        if self._undecided[network] >= self._websockets.settings.max_unauthenticated_per_address:
            raise web.HTTPTooManyRequests(headers={hdrs.RETRY_AFTER: "2"})
        self._undecided[network] += 1
        try:
            yield
        finally:
            self._undecided[network] -= 1
            if not self._undecided[network]:
                del self._undecided[network]

    async def _preflight(self, request: web.Request) -> web.Response:
        headers = self._cors(request)
        headers["Access-Control-Allow-Headers"] = "Authorization"
        headers["Access-Control-Allow-Methods"] = "GET"
        return web.Response(status=204, headers=headers)

    def _caller(self, request: web.Request) -> Caller | None:
        """Who asks; None where it is a page that may not."""
        # A proxy may add a line of its own to the one that a client wrote: they are one list.
        forwarded = {name: ",".join(request.headers.getall(name, ())) for name in FORWARDED}
        caller = self._origins.caller(request.remote or "", request.scheme, forwarded)
        origin = request.headers.get(hdrs.ORIGIN)
        if self._origins.allows(origin, request.host, caller.scheme):
            return caller
        self._tell(origin)
        return None

    def _tell(self, origin: str | None) -> None:
        if origin and origin not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(origin)
            log.warning("page refused: signaling.allowed_origins lacks it", origin=origin[:256])

    def _cors(self, request: web.Request) -> dict[str, str]:
        headers: dict[str, str] = {hdrs.CACHE_CONTROL: "no-store", hdrs.VARY: "Origin"}
        shared = self._origins.shared_with(request.headers.get(hdrs.ORIGIN))
        if shared:
            headers["Access-Control-Allow-Origin"] = shared
            headers["Access-Control-Expose-Headers"] = "Link"
        return headers


def _token_of(request: web.Request) -> str:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.query.get("token", "")


def _refused_origin() -> web.Response:
    return web.Response(
        status=403,
        text="pages of this origin may not connect; see signaling.allowed_origins\n",
    )


def _file(
    path: Path, *, shared: bool = False
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    headers: dict[str, str] = {hdrs.CACHE_CONTROL: "no-cache"}
    if shared:
        headers["Access-Control-Allow-Origin"] = "*"

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.FileResponse(path, headers=headers)

    return handle


@web.middleware
async def _security_headers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(SECURITY_HEADERS)
        raise
    if not response.prepared:
        response.headers.update(SECURITY_HEADERS)
        if request.path.startswith("/assets/"):
            # Modules of the client, which pages of other sites load through /client.js.
            response.headers["Access-Control-Allow-Origin"] = "*"
            response.headers[hdrs.CACHE_CONTROL] = "no-cache"
    return response
