"""The sockets of clients: who may have one, what is said over it, and a name for every end."""

import asyncio
import random
import time
from collections import Counter
from typing import Protocol

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from signaling.backlog import Backlog
from signaling.connection import Session
from signaling.hub import Hub
from signaling.line import Line
from signaling.outbox import Socket, SocketSettings
from signaling.protocol import SUBPROTOCOL
from signaling.protocol import messages as m
from signaling.protocol.errors import CloseCode, ErrorCode, ProtocolError
from signaling.requests import MOST_REFUSED
from signaling.stats import Stats

log = structlog.get_logger("signaling")


LATER = 5
"""Seconds after which those who are turned away may come again, at most; each at its own time."""


class Dialogue(Protocol):
    """What is said over a socket."""

    native: bool
    """Whether it is ``icebroker.v1``."""
    protocols: tuple[str, ...]
    """WebSocket subprotocols; empty: whatever is asked for is not answered."""

    async def begin(self, ws: web.WebSocketResponse, socket: "Socket") -> Session | None:
        """Find out who it is, soon; None where the socket ended without a session."""

    async def receive(self, session: Session, text: str) -> None:
        """Handle a text frame."""

    async def finish(self, *, cut: bool) -> None:
        """No more is read: see to what was, unless it was we who ended it."""

    def ended(self, code: int | None) -> bool:
        """The socket has ended; whether a client that closes with this code leaves for good."""


class WebSockets:
    """The sockets of this node."""

    def __init__(self, settings: SocketSettings, hub: Hub, stats: Stats) -> None:
        self.settings = settings
        """May be replaced at any time; sockets that are open keep theirs."""
        self._hub = hub
        self._stats = stats
        self._strangers: Counter[str] = Counter()
        self.connections = 0
        self.backlog = Backlog()
        self.most_lag = 1.0
        """Seconds that this process may be behind its clock before it turns new clients away."""
        self.lag = 0.0
        """Seconds by which this process is behind its clock, as it was seen last. In a storm of
        clients those who are in go first: one that is let in and not answered would come again."""

    async def serve(
        self, request: web.Request, network: str, dialogue: Dialogue | None = None
    ) -> web.StreamResponse:
        """Serve one socket until it ends.

        :param network: what counts as one address (IPv4, or an IPv6 /64).
        :param dialogue: what is said over it; None: ``icebroker.v1``.
        """
        if dialogue is None:
            dialogue = Native(self._hub, self._stats)
        refusal = self._refusal(request, network, dialogue)
        if refusal is not None:
            return refusal
        settings = self.settings
        ws = web.WebSocketResponse(
            protocols=dialogue.protocols,
            compress=False,
            autoping=False,  # aiohttp answers any number of them, before it lets anybody else go on
            autoclose=False,
            heartbeat=settings.heartbeat,
            max_msg_size=settings.max_message_bytes,
        )
        self._strangers[network] += 1
        self.connections += 1
        try:
            try:
                await self._prepare(ws, request, network)
            except ConnectionError:
                return web.Response(status=400)  # gone before the upgrade: nobody reads it
            except ValueError:  # aiohttp's word for headers that are not ASCII
                return web.Response(status=400, text="these headers are no WebSocket's\n")
            await self._run(ws, network, dialogue)
        finally:
            self.connections -= 1
            # After aiohttp has finished with them.
            asyncio.get_running_loop().call_later(UNLINK_AFTER, _unlink, ws, request)
        return ws

    async def _prepare(self, ws: web.WebSocketResponse, request: web.Request, network: str) -> None:
        """Take the request's connection over. :raises HTTPException: it is no WebSocket's."""
        try:
            await ws.prepare(request)
        except BaseException:
            self._forget_stranger(network)
            raise

    def _refusal(
        self, request: web.Request, network: str, dialogue: Dialogue
    ) -> web.Response | None:
        most = self.settings.max_connections
        full = most and self.connections >= most
        if self._hub.draining or full or self.lag > self.most_lag:
            return web.Response(
                status=503,
                text="busy: try again elsewhere or later\n",
                headers={"Retry-After": str(random.randint(1, LATER))},  # noqa: S311 - spreads load
            )
        if self._strangers[network] >= self.settings.max_unauthenticated_per_address:
            return web.Response(
                status=429,
                text="too many sockets of this address have not said hello\n",
                headers={"Retry-After": "5"},
            )
        offered = request.headers.get("Sec-WebSocket-Protocol")
        known = dialogue.protocols
        if offered and known and known[0] not in [part.strip() for part in offered.split(",")]:
            return web.Response(status=400, text=f"this server speaks {known[0]}\n")
        return None

    async def _run(self, ws: web.WebSocketResponse, network: str, dialogue: Dialogue) -> None:
        socket = Socket(
            ws, self.settings, self._stats, native=dialogue.native, backlog=self.backlog
        )
        session: Session | None = None
        try:
            try:
                async with asyncio.timeout(self.settings.hello_timeout):
                    session = await dialogue.begin(ws, socket)
            except TimeoutError:
                socket.close(CloseCode.HELLO_TIMEOUT, "no hello in time")
            finally:
                self._forget_stranger(network)
            if session is not None:
                try:
                    await _read(ws, socket, session, dialogue)
                finally:
                    await dialogue.finish(cut=bool(socket.reason))
        finally:
            reason = await self._finish(ws, socket)
            if session is not None:
                gone = dialogue.ended(ws.close_code) and not socket.reason
                await self._hub.lost(session, socket, for_good=gone or reason in FOR_GOOD)

    async def _finish(self, ws: web.WebSocketResponse, socket: Socket) -> str:
        """Let the last frames out, and the client say goodbye; why it ended."""
        await socket.finish()
        if socket.said_goodbye:
            await _read_to_the_end(ws)
            socket.end()
        else:
            await ws.close(drain=False)
        reason = socket.reason or _reason(ws.close_code, ws)
        self._stats.disconnects[reason] += 1
        log.debug("socket ended", reason=reason, code=ws.close_code)
        return reason

    def _forget_stranger(self, network: str) -> None:
        self._strangers[network] -= 1
        if not self._strangers[network]:
            del self._strangers[network]


class Native:
    """What is said over ``/ws``: ``icebroker.v1``."""

    native = True
    protocols: tuple[str, ...] = (SUBPROTOCOL,)

    def __init__(self, hub: Hub, stats: Stats) -> None:
        self._hub = hub
        self._stats = stats
        self._requests = hub.requests
        self._waits = hub.broker.waits
        self._line: Line | None = None
        """What waits for a broker that has to be waited for; silent sockets need none."""

    async def begin(self, ws: web.WebSocketResponse, socket: Socket) -> Session | None:
        """Wait for a good hello; None where the socket ended without one."""
        mistakes = 0
        async for frame in ws:
            if frame.type is WSMsgType.ERROR:
                return None  # not a frame; aiohttp has closed the socket, and its code says why
            if frame.type is WSMsgType.BINARY:
                socket.close(CloseCode.NOT_TEXT, "frames are text")
                return None
            if frame.type is WSMsgType.PING:
                socket.pong(frame.data)
            session = (
                await self._greet(socket, frame.data) if frame.type is WSMsgType.TEXT else None
            )
            mistakes += 1
            if session is None and mistakes > MOST_BEFORE_HELLO:
                socket.close(CloseCode.FLOOD, "too many messages before a hello")
            if session is not None or socket.reason:
                return session
        return None

    async def _greet(self, socket: Socket, text: str) -> Session | None:
        """Answer what should be a hello; None where it is none, or not a good one."""
        try:
            message = m.parse_untrusted(text)
            if not isinstance(message, m.Hello):
                raise ProtocolError(ErrorCode.HELLO_FIRST, "say hello first")
            return await self._hub.hello(socket, message)
        except ProtocolError as error:
            self._stats.dropped[error.code] += 1
            self._hub.tell("session_refused", {"code": error.code, "why": error.reason})
            answer = m.Error(error.code, error.message, error.retryable, m.id_of_untrusted(text))
            socket.send(m.encode(answer))
            if error.code in REFUSALS:
                socket.close(REFUSALS[error.code], error.message)
        return None

    async def receive(self, session: Session, text: str) -> None:
        """Handle a text frame. Who writes too many is read more slowly, until it is cut."""
        refused = session.rate.refused
        message = self._requests.read(session, text, time.monotonic())
        if message is not None:
            if not self._waits:
                await self._requests.handle(session, message)
            else:
                if self._line is None:
                    self._line = Line(self._requests.handle)
                await self._line.put((session, message))
        if session.rate.refused > refused:
            await asyncio.sleep(FLOOD_PAUSE)

    async def finish(self, *, cut: bool) -> None:
        """Have what was read before the end handled before the end is."""
        if self._line is not None:
            await self._line.finish(all_of_it=not cut)

    def ended(self, code: int | None) -> bool:
        """A page that goes away may come back: only 1000 is for good."""
        return code == CloseCode.NORMAL


UNLINK_AFTER = 1.0
"""Seconds."""
AT_ONCE = 16
"""Frames of one socket that are handled before others have a go."""
FLOOD_PAUSE = 0.01
"""Seconds after each message over the limit, so that a flood costs little until it is cut."""
WS_LINKS = ("_req", "_reader", "_writer", "_payload_writer", "_exception")
REQUEST_LINKS = ("_protocol", "_payload_writer", "_match_info", "_task")
"""Attributes of aiohttp's objects that lead back to them; a test counts what is left."""
MOST_LAST_WORDS = 1 << 20
"""Bytes that are read of a client that is to go."""
FRAME_COST = 64
"""Bytes that a frame counts for, whatever it holds."""
MOST_BEFORE_HELLO = 8
"""Messages that are no hello, and pings; who sends more is cut."""
CONTROL = frozenset({WSMsgType.PING, WSMsgType.PONG})
ENDS: dict[int, str] = {
    CloseCode.NORMAL: "left",
    WSCloseCode.GOING_AWAY: "page_gone",
    WSCloseCode.MESSAGE_TOO_BIG: "too_large",
    WSCloseCode.PROTOCOL_ERROR: "protocol_error",
    WSCloseCode.INVALID_TEXT: "protocol_error",
}
"""Close codes of clients and of the WebSocket layer, by the name that they are counted under."""
REFUSALS = {
    ErrorCode.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
    ErrorCode.TOO_MANY_CONNECTIONS: CloseCode.TOO_MANY_CONNECTIONS,
    ErrorCode.UNAVAILABLE: CloseCode.UNAVAILABLE,
}
"""Errors of a hello after which the socket is closed, and how."""
FOR_GOOD = frozenset({"flood", "unauthorized", "not_text", "removed"})
"""Ends after which the session may not go on."""


ENDED = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})
"""What aiohttp gives instead of a frame when there will be none any more."""


def _reason(code: int | None, ws: web.WebSocketResponse) -> str:
    if isinstance(ws.exception(), TimeoutError):
        return "heartbeat"
    return ENDS.get(code or 0, "lost")


def _unlink(ws: web.WebSocketResponse, request: web.Request) -> None:
    """Break the cycles in which aiohttp leaves an ended WebSocket, so that it is freed at once.

    The collector would have to look through all that live to find it, and stop for as long.
    """
    ws._heartbeat = None  # noqa: SLF001 - or whatever the client still says begins it again
    ws._cancel_heartbeat()  # noqa: SLF001
    for thing, names in ((ws, WS_LINKS), (request, REQUEST_LINKS)):
        for name in names:
            if hasattr(thing, name):
                setattr(thing, name, None)


async def _read_to_the_end(ws: web.WebSocketResponse) -> None:
    """Read what a client still says that is to go: unread, it would cost it our close code."""
    size = 0
    while not ws.closed and size < MOST_LAST_WORDS:
        frame = await ws.receive()
        if frame.type in ENDED:
            return
        size += FRAME_COST + len(frame.data)


async def _read(
    ws: web.WebSocketResponse, socket: Socket, session: Session, dialogue: Dialogue
) -> None:
    receive, handle = ws.receive, dialogue.receive
    frames = 0
    while True:
        frame = await receive()
        if socket.reason:
            return  # what still comes in is nobody's business any more
        if frame.type is WSMsgType.TEXT:
            await handle(session, frame.data)
            frames += 1
            if frames % AT_ONCE == 0:
                # Frames that are here already are read without a pause: let the others have a go.
                await asyncio.sleep(0)
        elif frame.type is WSMsgType.BINARY:
            socket.close(CloseCode.NOT_TEXT, "frames are text")
            return
        elif frame.type in CONTROL:
            await _control(socket, session, frame)
        elif frame.type in ENDED:
            return


async def _control(socket: Socket, session: Session, frame: WSMessage) -> None:
    """A ping or a pong is a message too: over the limit it is read slowly, then the socket is cut.

    One that is over it is not answered: RFC 6455 §5.5.3 lets the latest stand for all.
    """
    if session.rate.allow(time.monotonic()):
        if frame.type is WSMsgType.PING:
            socket.pong(frame.data)
        return
    if session.rate.refused > MOST_REFUSED:
        socket.close(CloseCode.FLOOD, "too many messages")
    await asyncio.sleep(FLOOD_PAUSE)
