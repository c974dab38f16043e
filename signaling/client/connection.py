"""One session with the signaling server, over as many sockets as it takes."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import aiohttp
import structlog

from signaling.client import dialing, pacing
from signaling.client import token as tokens
from signaling.client.dialing import COME_BACK, LEAVE, LOST, REPLACED, UNAUTHORIZED, Socket
from signaling.client.errors import SignalingError
from signaling.client.session import Request, Session, Welcome

log = structlog.get_logger("signaling.client")

ACK_EVERY = 16
"""Events that are acknowledged together."""
ACK_DELAY = 0.2
"""Seconds after which fewer are, too."""
DIAL_TIMEOUT = 10.0
FAREWELL = 2.0
"""Seconds that the server has to answer when we leave."""
REFUSED_PAUSE = 0.2
"""Seconds before a refused request is sent again; as many times more as it has been refused."""
MOST_DIGITS = 4000
"""Of an integer; Python reads none of more than 4,300."""
JUMP = "jump"
"""An event with a number and nothing else: it is acknowledged, and nobody is told."""


class Hears(Protocol):
    """Who is told what comes of a connection."""

    def event(self, message: dict[str, Any], size: int = 0) -> None:
        """The server's, once and in order. :param size: of its text frame."""

    def resumed(self) -> None:
        """It was lost, and nothing else was."""

    def restarted(self, connection: "Connection") -> None:
        """Another session has begun, which is in no room yet."""

    def ended(self) -> None:
        """Nothing comes any more."""


class Connection:
    """What it takes to be heard: dials, hellos, pacing, acknowledgements, and trying again."""

    def __init__(
        self, url: str, tls: Any, token: tokens.Token | None, hello: dict[str, Any], hears: Hears
    ) -> None:
        """Prepare. :param hello: what is said at each connection, beside token and session."""
        self.failure: SignalingError | None = None
        """Why it is over."""
        self._dial = partial(Socket.dial, url=url, tls=tls)
        self._token = token
        self._hello = hello
        self._hears = hears
        self._session = Session()
        self._socket: Socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._unheard = 0
        """Hellos of sockets that ended without an answer: each may still be heard, by a node that
        sleeps, and would take our session to a socket that is no more."""
        self._welcomes = 0
        self._is_away = False
        """Whether it was told that there is no connection."""
        self._ack_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._close_code = COME_BACK
        self._turn = asyncio.Lock()
        self._pacer = pacing.Pacer(50, 100)

    @property
    def peer(self) -> str:
        """The client's own peer id."""
        return self._session.peer

    # Life ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, however long it takes. :raises SignalingError: the server refuses us."""
        self._task = asyncio.create_task(self._run())
        waiter = asyncio.create_task(self._connected.wait())
        try:
            await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # nobody comes to close what nobody got
            await self.close()
            raise
        finally:
            waiter.cancel()
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        """Leave for good."""
        if self._task is None:
            return
        self._close_code = LEAVE
        if self._socket is not None:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._socket.close(LEAVE)
            # The task may be the one that closes. Cut short, TLS drops the farewell, and the others
            # would wait for us until the session ends.
            await asyncio.wait({self._task}, timeout=FAREWELL)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        self._end(SignalingError("closed"))

    async def drop(self) -> None:
        """Lose the socket; another one is dialled."""
        if self._socket is not None:
            await self._socket.close(COME_BACK)

    # What is sent --------------------------------------------------------------------------

    async def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Ask, over as many sockets as it takes, for the answer. :raises SignalingError:"""
        if self.failure is not None:
            raise self.failure
        request = self._session.request(message)
        try:
            await self._send_request(request)
            return await request.answer
        finally:
            self._session.forget(request)

    async def notify(self, message: dict[str, Any]) -> None:
        """Send what is worth nothing later; nothing where there is no connection."""
        async with self._turn:  # one after the other, so that pacing keeps the order
            await self._pacer.wait()
            if self._connected.is_set():
                await self._write(message)

    async def _send_request(self, request: Request) -> None:
        """Write it, where there is a connection; else the next one begins with it.

        One that has ended meanwhile, and whose caller has gone on since, is not sent any more.
        """
        async with self._turn:
            await self._pacer.wait()
            if self._connected.is_set() and not request.answer.done():
                await self._write(request.frame)

    async def _write(self, message: dict[str, Any]) -> None:
        if self._socket is not None:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._socket.send(message)

    def later(self, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
        """Do something that ends with the connection at the latest."""

        async def act() -> None:
            await asyncio.sleep(seconds)
            await action()

        task = asyncio.create_task(act())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # One socket after the other ------------------------------------------------------------

    async def _run(self) -> None:
        delay = pacing.FIRST_DELAY
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
                delay = pacing.FIRST_DELAY if welcomed else min(delay * 2, pacing.LONGEST_DELAY)
                await asyncio.sleep(pacing.jittered(delay))

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
            token = await tokens.fresh(self._token)
            self._socket = socket = await self._dial(http)
        try:
            hello = {**self._hello, "token": token, "resume": self._session.resumption()}
            await socket.send({key: value for key, value in hello.items() if value})
            self._unheard += 1
            welcomes = self._welcomes
            async for text in socket:
                await self._receive_untrusted(text)
            welcomed = self._connected.is_set()
        finally:
            self._connected.clear()
            self._socket = None
            code = await socket.end(self._close_code)
        self._judge_end(code, welcomed=self._welcomes != welcomes)
        return welcomed

    def _judge_end(self, code: int, *, welcomed: bool) -> None:
        """What a close code says. :raises SignalingError: the server does not want us back."""
        if welcomed or code != LOST:
            self._unheard -= 1
        if code == REPLACED and self._unheard:
            self._unheard -= 1
            log.debug("replaced by a socket of our own that is no more")
        elif dialing.is_final(code):
            why = "the server closed the connection"
            if code == UNAUTHORIZED and not welcomed:
                why = tokens.why_not_taken(self._token, before=bool(self.peer))
            raise SignalingError("refused", f"{why} ({code})")

    # What arrives --------------------------------------------------------------------------

    async def _receive_untrusted(self, text: str) -> None:
        """:raises SignalingError: and nothing else, so that whoever waits for us hears of it."""
        try:
            self._receive(json.loads(text, parse_int=_integer), len(text))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise SignalingError("bad_frame", f"this is not icebroker.v1: {error!r}") from None

    def _receive(self, message: dict[str, Any], size: int) -> None:
        kind = message.get("type")
        if kind == "welcome":
            self._welcome(message)
        elif request := self._session.answered_by(message):
            self._settle(request, message)
        elif kind == "goaway":
            self.later(pacing.before(message["deadline"]), self.drop)
        elif kind not in {"pong", "ok"}:
            self._event(message, size)

    def _welcome(self, message: dict[str, Any]) -> None:
        if self._is_away:
            self._is_away = False
            log.info("connected to signaling")
        means = self._session.welcome(message)
        self._welcomes += 1
        self._pacer = pacing.Pacer(
            message["limits"]["messagesPerSecond"], message["limits"]["burst"]
        )
        if self._session.requests():
            # Not awaited: the answers are read by whoever called this.
            self.later(0, partial(self._send_again, self._socket))
        else:
            self._connected.set()
        if means is Welcome.RESUMED:
            self._hears.resumed()
        elif means is Welcome.RESTARTED:
            self._hears.restarted(self)

    async def _send_again(self, socket: Socket | None) -> None:
        """What was asked before goes out before anything that is asked from now on."""
        async with self._turn:
            for request in self._session.requests():
                await self._pacer.wait()
                # Where it was lost again, the next one begins anew.
                if self._socket is socket and not request.answer.done():
                    await self._write(request.frame)
            if self._socket is socket:
                self._connected.set()

    def _settle(self, request: Request, message: dict[str, Any]) -> None:
        if not self._session.settle(request, message):
            self.later(REFUSED_PAUSE * request.refusals, partial(self._send_request, request))

    def _event(self, message: dict[str, Any], size: int) -> None:
        if seq := message.get("seq", 0):
            if not self._session.accept(seq):
                return
            self._acknowledge_soon()
        if message.get("type") != JUMP:
            self._hears.event(message, size)

    def _acknowledge_soon(self) -> None:
        if self._session.unacknowledged >= ACK_EVERY:
            self._acknowledge()
        elif self._ack_timer is None:
            loop = asyncio.get_running_loop()
            self._ack_timer = loop.call_later(ACK_DELAY, self._acknowledge)

    def _acknowledge(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        self.later(0, partial(self.notify, self._session.acknowledge()))

    def _end(self, error: SignalingError) -> None:
        if self.failure is not None:
            return
        self.failure = error
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        self._session.fail(error)
        self._hears.ended()


def _integer(digits: str) -> int | float:
    """A peer may send a number of any length; a very long one is infinite, as in a browser."""
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)
