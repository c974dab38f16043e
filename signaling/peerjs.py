"""PeerJS applications: the wire protocol of their client, over the same rooms, broker and limits.

A client's id is its own choice and all it is known by, so the session's name is made from it:
whichever node it comes to finds what is its own. Rooms are entered quietly, as nobody in PeerJS is
told of anybody; with join tokens the token's room is the room, else all of a key share one.
"""

import asyncio
import itertools
import secrets
import time
import uuid
from collections import deque
from collections.abc import Coroutine
from typing import Any, NamedTuple

import msgspec
from aiohttp import hdrs, web
from msgspec import UNSET

from signaling.auth import Claims
from signaling.broker.base import (
    Later,
    MailboxFull,
    NotThere,
    RoomFull,
    SessionOver,
    SessionRecord,
    Taken,
    Unavailable,
)
from signaling.connection import Session
from signaling.hub import Hub, hash_of
from signaling.outbox import Socket
from signaling.protocol import peerjs
from signaling.protocol.errors import CloseCode, ErrorCode, ProtocolError
from signaling.protocol.messages import NULL
from signaling.protocol.peerjs import FORWARDED, ClientFrame, Forwarded, Kind
from signaling.stats import Stats

PATIENCE = 5.0
"""Seconds that a message waits for a recipient who is not there, before EXPIRE."""
RETRY, LONGEST_RETRY = 0.25, 1.0
"""Seconds before the first look whether it is, and before the later ones."""
MOST_WAITING = 256
MOST_WAITING_BYTES = 1 << 20
"""Messages that one client may have waiting, and what is in them."""
MOST_TOKEN_BYTES = 4096
ENDS = frozenset({0, 1000, 1001, 1005})
"""Close codes with which a client gives up its id, as the PeerJS server has it: it closes its
socket without one, and a page that is left loses the token that could claim the id."""


class PeerJsSettings(NamedTuple):
    """What the endpoint is told of the settings."""

    peerjs: bool
    peerjs_key: str
    peerjs_discovery: bool
    peerjs_capacity: int


class Refused(Exception):
    """A client may not come in; the frame that tells it so."""

    def __init__(self, frame: bytes, code: CloseCode) -> None:
        super().__init__(frame)
        self.frame = frame
        self.code = code


class PeerJs:
    """The endpoint ``/peerjs``."""

    def __init__(self, settings: PeerJsSettings, hub: Hub, stats: Stats) -> None:
        self.settings = settings
        """May be replaced at any time."""
        self.hub = hub
        self.stats = stats

    def dialogue(self, request: web.Request) -> "PeerJsDialogue":
        """What is to be said over a socket that is asked for."""
        query = {name: request.query.get(name, "") for name in ("key", "id", "token")}
        return PeerJsDialogue(self, **query)

    def get_id(self, key: str) -> web.Response:
        """``GET /peerjs/{key}/id``: an id for whoever has none of its own."""
        if key != self.settings.peerjs_key:
            return _text(401, "Invalid key provided")
        return _text(200, str(uuid.uuid4()))

    async def get_peers(self, key: str, token: str) -> web.Response:
        """``GET /peerjs/{key}/peers``: the ids of everyone, where that is allowed."""
        if key != self.settings.peerjs_key or not self.settings.peerjs_discovery:
            return _text(401, "peers are not listed here; see signaling.peerjs_discovery")
        try:
            room = self.room(await self.hub.admit(token))
            names = await self.hub.broker.quiet_names(room)
        except ProtocolError as error:
            return _text(503 if error.retryable else 401, error.message)
        except Unavailable:
            return _text(503, "the broker is away; try again soon")
        return web.json_response(names, headers={hdrs.CACHE_CONTROL: "no-store"})

    def room(self, claims: Claims | None) -> str:
        """The room that a client comes into."""
        return (claims and claims.room) or f"peerjs/{self.settings.peerjs_key}"

    async def record(self, peer_id: str, token: str) -> tuple[SessionRecord, str]:
        """The session that a client asks for, and its room. :raises Refused, Unavailable:"""
        if not (peer_id and token):
            text = "No id, token, or key supplied to websocket server"
            raise Refused(peerjs.problem(Kind.ERROR, text), CloseCode.UNAUTHORIZED)
        if not peerjs.is_id(peer_id) or len(token) > MOST_TOKEN_BYTES:
            text = f"an id is 1 to {peerjs.MOST_ID} letters and digits, with - _ or a blank between"
            raise Refused(peerjs.problem(Kind.ERROR, text), CloseCode.UNAUTHORIZED)
        try:
            claims = await self.hub.admit(token, name=peer_id)
        except ProtocolError as error:
            self.stats.dropped[error.code] += 1
            if error.retryable:
                raise Unavailable(error.message) from None
            frame = peerjs.problem(Kind.ERROR, error.message)
            raise Refused(frame, CloseCode.UNAUTHORIZED) from None
        if claims and not claims.can_publish:
            text = "the token does not let you send, and a call needs that"
            raise Refused(peerjs.problem(Kind.ERROR, text), CloseCode.UNAUTHORIZED)
        room = self.room(claims)
        name = peerjs.name_of(room, peer_id)
        grant = self.hub.grant(claims)
        if claims is None or claims.capacity is None:
            grant = msgspec.structs.replace(grant, capacity=self.settings.peerjs_capacity)
        # Who comes back with a newer token of the same user is the same user.
        secret = f"sub {claims.subject}" if claims and claims.subject else f"token {token}"
        return SessionRecord(name, hash_of(secret), name, peer_id, grant), room


class PeerJsDialogue:
    """What is said over one socket."""

    native = False
    protocols: tuple[str, ...] = ()

    def __init__(self, endpoint: PeerJs, key: str, id: str, token: str) -> None:  # noqa: A002 - the query's own words
        self._endpoint = endpoint
        self._hub = endpoint.hub
        self._key = key
        self._id = id
        self._token = token
        self._room = ""
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._tag = secrets.token_hex(8)
        self._numbers = itertools.count()
        """Behind the tag, the ids of requests: those of the client's next socket are others."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._acknowledging = False

    async def begin(self, _: web.WebSocketResponse, socket: Socket) -> Session | None:
        """Let the client in, anew or again; None where it may not."""
        try:
            if self._key != self._endpoint.settings.peerjs_key:
                frame = peerjs.problem(Kind.INVALID_KEY, "Invalid key provided")
                raise Refused(frame, CloseCode.UNAUTHORIZED)
            record, self._room = await self._endpoint.record(self._id, self._token)
            session = await self._resume(socket, record) or await self._open(socket, record)
        except Refused as refusal:
            socket.send(refusal.frame)
            socket.close(refusal.code, "refused")
            return None
        except (Unavailable, SessionOver, ProtocolError):
            # Without a frame: after an ERROR the client would not come back.
            socket.close(CloseCode.UNAVAILABLE, "the broker is away; try again soon")
            return None
        socket.on_idle = lambda: self._acknowledge(session)
        return session

    async def receive(self, session: Session, text: str) -> None:
        """Handle a frame. One too many waits, and whoever writes it: the client retries nothing."""
        if delay := session.rate.delay(time.monotonic()):
            await asyncio.sleep(delay)
        frame = peerjs.parse_untrusted(text)
        if frame is None:
            self._endpoint.stats.dropped[ErrorCode.BAD_MESSAGE] += 1
        elif frame.type in FORWARDED and frame.dst:
            self._endpoint.stats.messages["peerjs"] += 1
            await self._forward(session, frame, frame.dst)
        elif frame.type != Kind.HEARTBEAT:
            self._endpoint.stats.dropped[ErrorCode.UNKNOWN_TYPE] += 1

    async def finish(self, *, cut: bool) -> None:
        """Nothing: each frame is handled before the next one is read."""

    def ended(self, code: int | None) -> bool:
        """Forget what waits; whether the client gave up its id."""
        for task in self._tasks:
            task.cancel()
        return code in ENDS

    # Coming in -----------------------------------------------------------------------------

    async def _resume(self, socket: Socket, record: SessionRecord) -> Session | None:
        broker = self._hub.broker
        resumption = await broker.resume(record.session, record.secret_hash, None)
        if resumption is None:
            return None
        session = await self._hub.attach_again(socket, resumption.record)
        socket.begin([_open(), *(frame for _, frame in resumption.missed)])
        session.sent = resumption.missed[-1][0] if resumption.missed else resumption.seq
        if self._room not in await broker.rooms_of(record.session):
            await self._enter(session)  # it was lost between the session and its room
        return session

    async def _open(self, socket: Socket, record: SessionRecord) -> Session:
        try:
            self._hub.refuse_crowd(record)
            await self._hub.broker.open(record)
        except ProtocolError as error:
            self._endpoint.stats.dropped[error.code] += 1
            frame = peerjs.problem(Kind.ERROR, error.message)
            raise Refused(frame, CloseCode.TOO_MANY_CONNECTIONS) from None
        except Taken:
            frame = peerjs.problem(Kind.ID_TAKEN, "ID is taken")
            raise Refused(frame, CloseCode.UNAUTHORIZED) from None
        session = self._hub.attach(socket, record)
        await self._enter(session)
        socket.send(_open())
        return session

    async def _enter(self, session: Session) -> None:
        name, capacity = session.record.session, session.record.grant.capacity
        try:
            await self._hub.broker.join(name, self._room, NULL, capacity, quiet=True)
        except BaseException as error:
            if session.connection is not None:
                await self._hub.lost(session, session.connection, for_good=True)
            if isinstance(error, RoomFull):
                frame = peerjs.problem(Kind.ERROR, "the room is full")
                raise Refused(frame, CloseCode.UNAVAILABLE) from None
            raise

    # To another ----------------------------------------------------------------------------

    async def _forward(self, session: Session, frame: ClientFrame, to: str) -> None:
        event = Forwarded(frame.type, self._id, to, frame.payload)
        request = f"{self._tag}-{next(self._numbers)}"
        line = self._waiting.get(to)
        if line is None and await self._try(session, event, request):
            return
        if event.type == Kind.LEAVE:
            return  # nobody is there who could be left
        if event.payload is not UNSET:
            event.payload = event.payload.copy()  # not to keep the whole frame that it came in
        message = _Waiting(event, request, time.monotonic() + PATIENCE)
        if self._is_full(message):
            self._expire(session, to)
        elif line is not None:
            line.append(message)
        else:
            self._waiting[to] = deque([message])
            self._run(self._wait_for(session, to))

    def _is_full(self, another: "_Waiting") -> bool:
        waiting = [message for line in self._waiting.values() for message in line]
        size = sum(message.size for message in waiting) + another.size
        return len(waiting) >= MOST_WAITING or size > MOST_WAITING_BYTES

    async def _wait_for(self, session: Session, to: str) -> None:
        """Send what waits for a recipient, in order, once it is there; or say that it is not."""
        line = self._waiting[to]
        pause = RETRY
        try:
            while line:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY)  # 256 of them are a lot of looks
                while line and await self._try(session, line[0].event, line[0].request):
                    line.popleft()
                if line and line[0].deadline <= time.monotonic():
                    self._expire(session, to)
                    return
        finally:
            del self._waiting[to]

    async def _try(self, session: Session, event: Forwarded, request: str) -> bool:
        """Send a message; False where it is worth another try.

        :param request: an id of its own: what makes a retry harmless.
        """
        recipient = peerjs.name_of(self._room, event.dst)
        try:
            await self._hub.broker.send(
                session.record.session, recipient, event, request, patient=False
            )
        except (NotThere, MailboxFull, Unavailable):
            return False
        except Later:
            pass  # it is with the recipient; nobody here waits for more
        except SessionOver:
            session.cut(CloseCode.SESSION_OVER)
        return True

    def _expire(self, session: Session, to: str) -> None:
        self._endpoint.stats.dropped[ErrorCode.NOT_FOUND] += 1
        if session.connection:
            session.connection.send(
                peerjs.frame(Kind.EXPIRE, src=to, dst=self._id), time.monotonic()
            )

    # Inside --------------------------------------------------------------------------------

    def _acknowledge(self, session: Session) -> None:
        """What was written has arrived, as far as this protocol can tell: it has no word for it."""
        if not self._acknowledging:
            self._acknowledging = True
            self._run(self._acknowledge_all(session))

    async def _acknowledge_all(self, session: Session) -> None:
        try:
            told = -1
            while told < session.sent:
                told = session.sent
                await self._hub.acknowledge(session)
        finally:
            self._acknowledging = False

    def _run(self, action: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Waiting(NamedTuple):
    """A message whose recipient is not there."""

    event: Forwarded
    request: str
    deadline: float
    """Monotonic time."""

    @property
    def size(self) -> int:
        """Bytes of what it brings."""
        return 0 if self.event.payload is UNSET else len(self.event.payload)


def _open() -> bytes:
    return peerjs.frame(Kind.OPEN)


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers={hdrs.CACHE_CONTROL: "no-store"})
