"""Who may use the API: a bearer token on every request, so that no page can do it unasked.

There is no cookie and so no CSRF: what a browser adds by itself proves nothing here.
"""

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

import msgspec
import structlog
from aiohttp import hdrs, web
from msgspec import Struct

log = structlog.get_logger("admin")

API = ("/api/", "/probe")
"""What a token is asked for: the paths that begin so."""
OPEN = frozenset({"/api/v1/openapi.json"})
"""What describes the API is no secret."""
OFF = "the admin API is off; set admin.token to have it (openssl rand -base64 32)"
NOWHERE = SplitResult("", "", "", "", "")
TELL_EVERY = 10.0
"""Seconds between two lines of the log about wrong tokens."""
HEADERS = {
    "Server": "icebroker",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Struct, frozen=True):
    """Why something was not done."""

    error: str
    """A code, for programs."""
    message: str
    """What is wrong and what to do, for people."""
    problems: list[str] = []
    """Each with file and line, where a configuration was refused."""


class ApiError(Exception):
    """A request fails with this status and this code."""

    def __init__(self, status: int, message: str, problems: list[str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(error_code(status), message, problems or [])


class Guard:
    """Holds the token; stands before every request."""

    def __init__(self, token: str, loopback: Collection[str] = ()) -> None:
        """Prepare. :param loopback: the listener's addresses that only this machine can reach."""
        self._loopback = loopback
        self._wrong = 0
        self._told = -TELL_EVERY
        self.set_token(token)

    def set_token(self, token: str) -> None:
        """Ask for this one from now on; "": there is no API."""
        self._digest = _digest(token) if token else None

    @property
    def on(self) -> bool:
        """Whether there is an API."""
        return self._digest is not None

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request through, or answer it; every answer gets the headers."""
        try:
            self._check_host(request)
            if request.path.startswith(API):
                self._admit(request)
            response = await handler(request)
        except ApiError as error:
            response = answer(error.problem, error.status)
            if error.status == HTTPStatus.UNAUTHORIZED:
                response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
        except web.HTTPException as error:
            if not request.path.startswith(API):
                raise
            code = error_code(error.status)
            response = answer(Problem(code, f"{request.method} {request.path}"), error.status)
            if hdrs.ALLOW in error.headers:
                response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _check_host(self, request: web.Request) -> None:
        """See that nobody's DNS name leads here (DNS rebinding). :raises ApiError: 421.

        A page elsewhere can have its own name resolve to 127.0.0.1, and then read what it asks
        for as its own: the metrics, say, which need no token.
        """
        name = _split(f"//{request.host}").hostname or ""
        here = request.transport.get_extra_info("sockname") if request.transport else None
        if here and here[0] in self._loopback and name != "localhost" and not _is_address(name):
            raise ApiError(421, "use http://127.0.0.1 or http://localhost here")

    def _admit(self, request: web.Request) -> None:
        """Let nobody else in. :raises ApiError: 403, 401, or 404 where there is no API."""
        if self._digest is None:
            raise ApiError(404, OFF)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and _split(origin).netloc != request.host:
            raise ApiError(403, "pages of another origin may not use this API")
        if request.path in OPEN:
            return
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        good = hmac.compare_digest(_digest(token.strip()), self._digest)
        if scheme.lower() != "bearer" or not good:
            if token:
                self._tell_wrong(request)
            raise ApiError(401, "send the header: Authorization: Bearer <admin.token>")

    def _tell_wrong(self, request: web.Request) -> None:
        # Whoever guesses must not fill the log with it.
        self._wrong += 1
        now = time.monotonic()
        if now - self._told >= TELL_EVERY:
            log.warning("wrong token", remote=request.remote, times=self._wrong)
            self._told, self._wrong = now, 0


def answer(body: Struct, status: int = 200) -> web.Response:
    """A JSON answer."""
    data = msgspec.json.encode(body)
    return web.Response(body=data, status=status, content_type="application/json")


def error_code(status: int) -> str:
    """What a program is told: ``not_found``."""
    return HTTPStatus(status).phrase.lower().replace(" ", "_")


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        return NOWHERE


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _digest(token: str) -> bytes:
    # Of one length, so that comparing them tells nothing of the token's. A header may be any bytes.
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
