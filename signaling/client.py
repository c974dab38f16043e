"""The Python client: a back end as a peer, over as many sockets as it takes.

A request is sent again, with the same id, until it is answered; events arrive once and in order;
a socket that is lost is opened anew and the session goes on, or ``restarted`` says that it
could not and what to do (restart ICE with each peer).
"""

import asyncio
import contextlib
import itertools
import json
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import aiohttp
import structlog

from signaling.protocol import SUBPROTOCOL
from signaling.unread import Unread

log = structlog.get_logger("signaling.client")

ACK_EVERY = 16
"""Events that are acknowledged together."""
ACK_DELAY = 0.2
"""Seconds after which fewer are, too."""
FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
"""Seconds before the first and the later tries to reconnect, before jitter."""
DIAL_TIMEOUT = 10.0
FAREWELL = 2.0
"""Seconds that the server has to answer when we leave."""
MOST_WAITING = 256
"""Requests without an answer; a further one fails at once."""
MOST_REFUSALS = 8
"""Answers "try again" that one request takes."""
MOST_DIGITS = 4000
"""Of an integer; Python reads none of more than 4,300."""
LEAVE, COME_BACK = 1000, 4000
"""Close codes: the server ends our session, or keeps it for a resume."""
REPLACED = 4501
"""Close code: the session goes on over another socket."""
LOST = 1006
"""What a socket that ended without a close code has in its place (RFC 6455 §7.1.5)."""
JUMP = "jump"
"""An event with a number and nothing else: it is acknowledged, and nobody is told."""
ANSWERS = frozenset({"ok", "joined", "ice", "error"})
OUTLIVES_SESSION = frozenset({"join", "ice"})
Token = str | Callable[[], Awaitable[str]]
"""A join token, or what gets a fresh one; where it raises OSError or
aiohttp.ClientError it is called again later."""


class SignalingError(Exception):
    """A request failed, or the connection is over; ``code`` is the protocol's, or one of ours.

    Ours: ``closed``, ``refused`` (the server does not want us back), ``session_lost``,
    ``queue_full``, ``bad_frame`` (what the server sends is not ``icebroker.v1``), ``no_token`` (the
    function that gets them failed).
    """

    def __init__(self, code: str, message: str = "", *, retryable: bool = False) -> None:
        super().__init__(message or code)
        self.code = code
        self.retryable = retryable


class Pacer:
    """Keeps below the server's rate limit, so that no message of ours is ever refused for it."""

    SHARE = 0.8
    """Of what the server allows."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate * self.SHARE
        self._burst = self._tokens = burst * self.SHARE
        self._updated = time.monotonic()

    async def wait(self) -> None:
        """Wait until one more message may be sent."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


class _Request:
    __slots__ = ("answer", "frame", "refusals")

    def __init__(self, frame: dict[str, Any], answer: "asyncio.Future[dict[str, Any]]") -> None:
        self.frame = frame
        self.answer = answer
        self.refusals = 0


class Client:
    """A signaling session. Use it as ``async with Client(url) as client``.

    Messages are dictionaries as the protocol has them. Besides the server's events,
    ``events()`` gives ``{"type": "resumed"}`` after a reconnect that lost nothing, and
    ``{"type": "restarted"}`` after one that began a new session: rooms were joined again, and
    ICE is to be restarted with each peer of the new ``joined``. Whoever does not read ``events()``
    as fast as they come finds ``{"type": "lost", "count": N}`` in the place of those that came
    while 1,024 (or 8 MiB) waited: ``join`` the room again to hear who is there now.
    """

    def __init__(
        self,
        url: str,
        *,
        token: "Token | None" = None,
        name: str = "",
        room: str = "",
        ssl: Any = True,
        before_rejoin: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare to connect.

        :param url: ``ws://…/ws`` or ``wss://…/ws``.
        :param token: a join token, or a function that gets one; it is called for each connection.
        :param room: that will be joined; needed where a back end decides who may.
        :param ssl: as aiohttp takes it: an ``ssl.SSLContext``, or True for the usual checks.
        :param before_rejoin: called with our new peer id after a lost session, before the others
            hear of it as of a newcomer's: connections that live may tell it to their other ends
            (PROTOCOL.md, "Between two clients"), and go on with restarted ICE.
        """
        self._url = url
        self._before_rejoin = before_rejoin
        self._hello = {"type": "hello", "name": name, "room": room}
        self._token = token
        self._ssl = ssl
        self._ids = itertools.count(1)
        self._waiting: dict[str, _Request] = {}
        self._rooms: dict[str, Any] = {}
        self._events = Unread()
        self._session: dict[str, str] | None = None
        self._seen = self._acknowledged = 0
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._unheard = 0
        """Hellos of sockets that ended without an answer: each may still be heard, by a node that
        sleeps, and would take our session to a socket that is no more."""
        self._welcomes = self._restarts = 0
        self._in_rooms = asyncio.Event()
        """Not set from the beginning of another session until its rooms are joined again."""
        self._in_rooms.set()
        self._rejoining: asyncio.Task[None] | None = None
        self._is_away = False
        """Whether it was told that there is no connection."""
        self._ack_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: SignalingError | None = None
        self._close_code = COME_BACK
        self._turn = asyncio.Lock()
        self._pacer = Pacer(50, 100)
        self.peer = ""
        """This client's own peer id."""

    # Life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect, however long it takes; bound it by ``asyncio.timeout``, if it is not to.

        :raises SignalingError: the server refuses us for good.
        """
        self._task = asyncio.create_task(self._run())
        waiter = asyncio.create_task(self._connected.wait())
        try:
            await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # nobody comes to close what nobody got
            await self.close()
            raise
        finally:
            waiter.cancel()
        if self._failure is not None:
            raise self._failure
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave for good: the others see ``leave`` at once."""
        await self.close()

    async def close(self) -> None:
        """Leave for good."""
        if self._task is None:
            return
        self._close_code = LEAVE
        if self._ws is not None:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._ws.close(code=LEAVE)
            # The task may be the one that closes. Cut short, TLS drops the farewell, and the others
            # would wait for us until the session ends.
            await asyncio.wait({self._task}, timeout=FAREWELL)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        self._end(SignalingError("closed"))

    async def drop(self) -> None:
        """Lose the socket, as a change of network would; the client comes back by itself."""
        if self._ws is not None:
            await self._ws.close(code=COME_BACK)

    # Requests ------------------------------------------------------------------------------

    async def join(self, room: str, meta: Any = None) -> dict[str, Any]:
        """Enter a room; gives ``joined``: the peers, and ICE servers. :raises SignalingError:"""
        joined = await self._request({"type": "join", "room": room, "meta": meta})
        self._rooms[room] = meta
        return joined

    async def leave(self, room: str) -> None:
        """Leave a room. :raises SignalingError:"""
        self._rooms.pop(room, None)
        await self._request({"type": "leave", "room": room})

    async def signal(self, to: str, **payload: Any) -> str:
        """Send ``description=``, ``candidate=`` or ``candidates=`` to a peer.

        :returns: ``delivered``, or ``queued`` where its socket is lost and it may come back.
        :raises SignalingError: it was not, and will not be, delivered.
        """
        answer = await self._request_of_member({"type": "signal", "to": to, **payload})
        return str(answer["status"])

    async def message(self, data: Any, to: str | None = None) -> str:
        """Send application data to a peer, or to everyone in our rooms; as ``signal``."""
        frame = {"type": "message", "data": data} | ({"to": to} if to else {})
        return str((await self._request_of_member(frame))["status"])

    async def ice_servers(self) -> dict[str, Any]:
        """Fresh ICE servers: ``iceServers`` and ``expiresAt``. :raises SignalingError:"""
        return await self._request({"type": "ice"})

    async def bye(self, to: str | None = None) -> None:
        """Tell a peer, or all, that the call is over; nothing where there is no connection."""
        await self._send({"type": "bye"} | ({"to": to} if to else {}))

    async def stats(self, peer: str, path: str, rtt: float) -> None:
        """Report which path a call takes (host, srflx, prflx, relay) and its round trip."""
        await self._send({"type": "stats", "peer": peer, "path": path, "rtt": rtt})

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The server's events, each once and in order, until ``close``.

        :raises SignalingError: ``refused``, where the server does not want us back.
        """
        while True:
            event = await self._events.get()
            if event is None:
                if self._failure is not None and self._failure.code != "closed":
                    raise self._failure
                return
            yield event

    async def _request_of_member(self, frame: dict[str, Any]) -> dict[str, Any]:
        """One that has to be sent from within our rooms: else it would reach nobody."""
        if asyncio.current_task() is not self._rejoining:  # before_rejoin may not wait for itself
            await self._in_rooms.wait()
        return await self._request(frame)

    async def _request(self, frame: dict[str, Any]) -> dict[str, Any]:
        if self._failure is not None:
            raise self._failure
        if len(self._waiting) >= MOST_WAITING:
            raise SignalingError("queue_full", "too many requests wait", retryable=True)
        request_id = str(next(self._ids))
        frame = {**frame, "id": request_id}
        request = _Request(frame, asyncio.get_running_loop().create_future())
        self._waiting[request_id] = request
        try:
            await self._send(frame, request)
            return await request.answer
        finally:
            self._waiting.pop(request_id, None)

    async def _send(self, frame: dict[str, Any], request: _Request | None = None) -> None:
        """Write, where there is a connection; what has an id is sent again otherwise.

        :param request: whose frame it is: one that has ended meanwhile, and whose caller has gone
            on since, is not sent any more.
        """
        async with self._turn:  # one after the other, so that pacing keeps the order
            await self._pacer.wait()
            ended = request is not None and request.answer.done()
            if self._connected.is_set() and not ended:
                await self._write(frame)

    async def _write(self, frame: dict[str, Any]) -> None:
        if self._ws is not None:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._ws.send_str(json.dumps(frame))

    # Connection ----------------------------------------------------------------------------

    async def _run(self) -> None:
        delay = FIRST_DELAY
        async with aiohttp.ClientSession() as http:
            while True:
                try:
                    welcomed = await self._connect_once(http)
                except SignalingError as error:
                    self._end(error)
                    return
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self._tell_away(error)
                    welcomed = False
                if self._close_code == LEAVE:
                    return
                delay = FIRST_DELAY if welcomed else min(delay * 2, LONGEST_DELAY)
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load

    def _tell_away(self, error: Exception) -> None:
        """Once an absence: whoever waits for us should not have to guess why."""
        if not self._is_away:
            self._is_away = True
            status = getattr(error, "status", None)  # what else is said of it has the URL
            reason = f"HTTP status {status}" if status else str(error) or type(error).__name__
            log.warning("no connection to signaling; trying on", reason=reason)

    async def _connect_once(self, http: aiohttp.ClientSession) -> bool:
        """One socket from beginning to end; True where the server welcomed us."""
        async with asyncio.timeout(DIAL_TIMEOUT):
            token = await self._fresh_token()
            ws = await http.ws_connect(
                self._url, protocols=(SUBPROTOCOL,), ssl=self._ssl, heartbeat=25, max_msg_size=0
            )
        self._ws = ws
        connection = ws._response.connection  # noqa: SLF001 - aiohttp shows it nowhere else
        transport = connection.transport if connection is not None else None
        sock = transport.get_extra_info("socket") if transport is not None else None
        try:
            hello = {**self._hello, "token": token, "resume": self._resume()}
            await ws.send_str(json.dumps({k: v for k, v in hello.items() if v}))
            self._unheard += 1
            welcomes = self._welcomes
            async for frame in ws:
                if frame.type is aiohttp.WSMsgType.TEXT:
                    await self._receive_untrusted(frame.data)
            welcomed = self._connected.is_set()
        finally:
            self._connected.clear()
            self._ws = None
            await ws.close(code=self._close_code)
            if transport is not None:
                _abort(transport, sock)
        code = ws.close_code or LOST
        if self._welcomes != welcomes or code != LOST:
            self._unheard -= 1
        if code == REPLACED and self._unheard:
            self._unheard -= 1
            log.debug("replaced by a socket of our own that is no more")
            return welcomed
        if 3500 <= code <= 3999 or 4500 <= code <= 4999:
            raise SignalingError("refused", f"the server closed the connection ({code})")
        return welcomed

    async def _fresh_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        try:
            return await self._token()
        except (aiohttp.ClientError, OSError):
            raise
        except Exception as error:  # a fault of the application's; it has to hear of it
            raise SignalingError("no_token", f"there is no token: {error!r}") from error

    def _resume(self) -> dict[str, Any] | None:
        return {**self._session, "seq": self._seen} if self._session else None

    # What arrives --------------------------------------------------------------------------

    async def _receive_untrusted(self, text: str) -> None:
        """:raises SignalingError: and nothing else, so that whoever waits for us hears of it."""
        try:
            await self._receive(json.loads(text, parse_int=_integer), len(text))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise SignalingError("bad_frame", f"this is not icebroker.v1: {error!r}") from None

    async def _receive(self, message: dict[str, Any], size: int) -> None:
        kind = message.get("type")
        if kind == "welcome":
            await self._welcome(message)
        elif kind in ANSWERS and message.get("id") in self._waiting:
            self._settle(self._waiting[message["id"]], message)
        elif kind == "goaway":
            self._later(message["deadline"] * random.uniform(0.1, 0.9), self.drop)  # noqa: S311
        elif kind not in {"pong", "ok"}:
            self._event(message, size)

    async def _welcome(self, message: dict[str, Any]) -> None:
        if self._is_away:
            self._is_away = False
            log.info("connected to signaling")
        restarted = self._session is not None and not message["resumed"]
        resumed = self._session is not None and message["resumed"]
        self._welcomes += 1
        self._session = {"session": message["session"], "secret": message["secret"]}
        self.peer = message["peer"]
        if not message["resumed"]:
            self._seen = 0
            self._fail_what_was_for_the_old_session()
        self._acknowledged = self._seen
        self._pacer = Pacer(message["limits"]["messagesPerSecond"], message["limits"]["burst"])
        if self._waiting:
            # Not awaited: the answers are read by whoever called this.
            self._later(0, partial(self._send_again, self._ws))
        else:
            self._connected.set()
        if resumed:
            self._events.put({"type": "resumed"})
        if restarted:
            # What comes now is told after the roster that it changes.
            self._events.hold()
            self._in_rooms.clear()
            self._restarts += 1
            self._later(0, partial(self._rejoin, self._restarts))

    async def _send_again(self, ws: aiohttp.ClientWebSocketResponse | None) -> None:
        """What was asked before goes out before anything that is asked from now on."""
        async with self._turn:
            for request in list(self._waiting.values()):
                await self._pacer.wait()
                # Where it was lost again, the next one begins anew.
                if self._ws is ws and not request.answer.done():
                    await self._write(request.frame)
            if self._ws is ws:
                self._connected.set()

    async def _rejoin(self, number: int) -> None:
        """Join our rooms in a new session. :param number: which one; a later one has its own."""
        self._rejoining = asyncio.current_task()
        if self._before_rejoin is not None:
            try:
                await self._before_rejoin(self.peer)
            except Exception:  # the application's; the rooms are joined whatever it does
                log.exception("before_rejoin failed")
        joined = []
        for room, meta in list(self._rooms.items()):
            with contextlib.suppress(SignalingError):
                joined.append(await self._request({"type": "join", "room": room, "meta": meta}))
        if number == self._restarts:
            self._events.release({"type": "restarted", "joined": joined})
            self._in_rooms.set()

    def _settle(self, request: _Request, message: dict[str, Any]) -> None:
        if request.answer.done():
            return
        if message["type"] != "error":
            request.answer.set_result(message)
            return
        request.refusals += 1
        if message.get("retryable") and request.refusals < MOST_REFUSALS:
            self._later(0.2 * request.refusals, partial(self._send, request.frame, request))
            return
        error = SignalingError(message["code"], message["message"], retryable=message["retryable"])
        request.answer.set_exception(error)

    def _event(self, message: dict[str, Any], size: int) -> None:
        seq = message.get("seq", 0)
        if seq:
            if seq <= self._seen:
                return  # replayed, and handled before
            self._seen = seq
            self._acknowledge_soon()
        if message.get("type") != JUMP:
            self._events.put(message, size)

    def _acknowledge_soon(self) -> None:
        if self._seen - self._acknowledged >= ACK_EVERY:
            self._acknowledge()
        elif self._ack_timer is None:
            loop = asyncio.get_running_loop()
            self._ack_timer = loop.call_later(ACK_DELAY, self._acknowledge)

    def _acknowledge(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        self._acknowledged = self._seen
        ack = {"type": "ack", "seq": self._seen}
        self._later(0, partial(self._send, ack))

    # Inside --------------------------------------------------------------------------------

    def _later(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        async def act() -> None:
            await asyncio.sleep(seconds)
            await action()

        task = asyncio.create_task(act())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _fail_what_was_for_the_old_session(self) -> None:
        for request in self._waiting.values():
            if request.frame["type"] not in OUTLIVES_SESSION and not request.answer.done():
                request.answer.set_exception(
                    SignalingError("session_lost", "the session could not go on", retryable=True)
                )

    def _end(self, error: SignalingError) -> None:
        if self._failure is not None:
            return
        self._failure = error
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        for request in self._waiting.values():
            if not request.answer.done():
                request.answer.set_exception(error)
        self._in_rooms.set()
        self._events.end()


def _integer(digits: str) -> int | float:
    """A peer may send a number of any length; a very long one is infinite, as in a browser."""
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def _abort(transport: asyncio.Transport, sock: Any) -> None:
    """Close at once: nobody waits for TLS to end, and a loop that stops would leave it open."""
    try:
        transport.abort()
    except AttributeError:
        # CPython 3.11.2 (Debian 12): a second close makes a TLS transport forget what abort needs.
        # Its loop hears of the end from the socket.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
