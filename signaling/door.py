"""The door: who has connected and not asked for anything yet, and what nonsense costs."""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, HttpProcessingError

from config.values import Endpoint
from signaling.origin import Caller

log = structlog.get_logger("signaling")

FIRST_REQUEST = 10.0
"""Seconds that a connection has to ask for something, whole; a TLS handshake has as long before."""
LEAST_SILENT = 64
"""Connections of one address (an IPv6 /64) that may always have asked for nothing yet."""
IDLE = 150.0
"""Seconds between requests: longer than proxies keep a connection that nobody uses."""
BACKLOG = 1024
LEAST_RATE, LEAST_BURST = 256 << 10, 1 << 20
"""Bytes a second, and at once, that any connection may send: pages are asked for by it, too."""
UNHEARD = logging.getLogger("signaling.unheard")
"""For aiohttp, which writes down what strangers send; ``Visitor`` has a line of its own instead."""
UNHEARD.disabled = True


class Limits(NamedTuple):
    """What settings say of a connection; see the ``LEAST_`` that hold in any case."""

    rate: float
    """Bytes a second that its messages may come to."""
    burst: float
    """Bytes at once."""
    silent: int
    """Connections of its address that have not asked for anything."""


class Door(web.BaseSite):
    """Listens for HTTP, and counts those who say nothing."""

    def __init__(
        self,
        runner: web.AppRunner,
        endpoint: Endpoint,
        tls: ssl.SSLContext | None,
        is_proxy: Callable[[str], bool],
        limits: Callable[[], Limits],
    ) -> None:
        """Prepare to listen.

        :param runner: set up, and without an access log of its own.
        :param is_proxy: whether an address is that of many clients, and so of no number of them.
        :param limits: as they are now.
        """
        super().__init__(runner, ssl_context=tls, backlog=BACKLOG)
        self._endpoint = endpoint
        self._is_proxy = is_proxy
        self.limits = limits
        self.silent: Counter[str] = Counter()
        """How many have not asked for anything, by address."""

    @property
    def name(self) -> str:
        """Where it listens."""
        return str(self._endpoint)

    async def start(self) -> None:
        """Begin to listen. :raises OSError: the address cannot be had."""
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            self._open, *self._endpoint, ssl=self._ssl_context, backlog=BACKLOG,
            ssl_handshake_timeout=FIRST_REQUEST if self._ssl_context else None,
        )  # fmt: skip

    def _open(self) -> "Visitor":
        loop = asyncio.get_running_loop()
        return Visitor(
            self._runner.server, loop=loop, door=self, access_log=None, logger=UNHEARD,
            keepalive_timeout=IDLE, auto_decompress=False,
        )  # fmt: skip

    def let_in(self, address: str) -> str | None:
        """Whether one more may connect from an address: what to count it by ("": by nothing)."""
        if not address or self._is_proxy(address):  # without one: it is gone already
            return ""
        network = Caller(address, "").network
        if self.silent[network] >= max(self.limits().silent, LEAST_SILENT):
            return None
        self.silent[network] += 1
        return network

    def forget(self, network: str) -> None:
        """One has asked for something, or is gone."""
        if network:
            self.silent[network] -= 1
            if not self.silent[network]:
                del self.silent[network]


class Visitor(web.RequestHandler):
    """A connection, from its first byte."""

    __slots__ = ("_burst", "_door", "_left", "_network", "_rate", "_silent_until", "_updated")

    def __init__(self, *arguments: Any, door: Door, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._door = door
        self._network: str | None = None
        self._silent_until: asyncio.TimerHandle | None = None
        limits = door.limits()
        self._rate = max(limits.rate, LEAST_RATE)
        self._burst = max(limits.burst, LEAST_BURST)
        self._left, self._updated = self._burst, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give it a while to ask for something."""
        super().connection_made(transport)
        host, *_ = transport.get_extra_info("peername") or ("",)
        self._network = self._door.let_in(host)
        if self._network is None:
            self.force_close()
        else:
            loop = asyncio.get_running_loop()
            self._silent_until = loop.call_later(FIRST_REQUEST, self.force_close)

    def data_received(self, data: bytes) -> None:
        """Read on, unless it is more than all messages may come to.

        Pieces of a message that never ends, with nothing in them, can be counted in no other way.
        """
        now = asyncio.get_running_loop().time()
        filled = self._left + (now - self._updated) * self._rate
        self._left, self._updated = min(self._burst, filled) - len(data), now
        if self._left < 0:
            log.debug("more bytes than messages may have")
            self.force_close()
        else:
            super().data_received(data)

    def asked(self) -> None:
        """A request has come."""
        if self._silent_until is not None:
            self._silent_until.cancel()
            self._silent_until = None
            self._door.forget(self._network or "")

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is gone."""
        self.asked()
        super().connection_lost(exc)

    def log_exception(self, *_: Any, exc_info: BaseException | None = None, **__: Any) -> None:
        """Tell of faults of ours; what a stranger wrote is not to be quoted: it may be a token."""
        if isinstance(exc_info, HttpProcessingError | ConnectionError | web.RequestPayloadError):
            log.debug("not a request", reason=type(exc_info).__name__)
        else:
            log.error("a request failed", exc_info=exc_info)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what cannot be answered, without the versions of what we are made of."""
        if isinstance(exc, UnicodeEncodeError) and not request.headers.get("Expect", "").isascii():
            # aiohttp would quote it.
            status, exc, message = 400, BadHttpMessage("bad Expect"), "bad Expect"
        response = super().handle_error(request, status, exc, message)
        response.headers["Server"] = "icebroker"
        return response


@web.middleware
async def notice(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell the door of each request."""
    if isinstance(request.protocol, Visitor):
        request.protocol.asked()
    return await handler(request)
