"""What clients ask for once they have a session: a message's road from its text to the answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from signaling.broker.base import (
    Broker,
    Directed,
    Later,
    MailboxFull,
    NotThere,
    RoomFull,
    SessionOver,
    Unavailable,
)
from signaling.connection import Session
from signaling.ice import IceProvider
from signaling.protocol import messages as m
from signaling.protocol.errors import CloseCode, ErrorCode, ProtocolError
from signaling.stats import PATHS, Stats, Tell

ICE_PUSH_AT = 0.6
"""Of a credential's lifetime: fresh ones are pushed then."""
MOST_REFUSED = 100
"""Messages over the rate limit in a row that close a socket for good."""
AWAY = "the broker is away; try again soon"
GONE = "there is no such peer in your rooms"
FAILURES: dict[type[Exception], tuple[ErrorCode, str]] = {
    Unavailable: (ErrorCode.UNAVAILABLE, AWAY),
    NotThere: (ErrorCode.NOT_FOUND, GONE),
    MailboxFull: (ErrorCode.QUEUE_FULL, "the peer is away and its queue is full"),
}
"""What a client is told of what the broker could not do."""


class Requests:
    """Answers what the sessions of this node ask for."""

    def __init__(
        self,
        broker: Broker,
        ice: IceProvider,
        stats: Stats,
        tell: Tell,
        most_rooms: Callable[[], int],
    ) -> None:
        """Prepare. :param most_rooms: that a session may be in, as it is now."""
        self._broker = broker
        self._ice = ice
        self._stats = stats
        self._tell = tell
        self._most_rooms = most_rooms
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[type, Callable[[Session, Any], Awaitable[m.ServerMessage | None]]] = {
            m.Join: self._join,
            m.Leave: self._leave,
            m.Signal: self._signal,
            m.Message: self._message,
            m.Bye: self._bye,
            m.Ack: self._ack,
            m.Ice: self._ice_request,
            m.PathStats: self._path_stats,
        }

    def read(self, session: Session, text: str, now: float) -> m.ClientMessage | None:
        """Parse a text frame; None where nothing is left to do: a ping is answered at once.

        Whatever it holds, the socket gets an answer and lives. :param now: monotonic time.
        """
        try:
            if not session.rate.allow(now):
                self._refuse_flood(session)
            message = m.parse_untrusted(text)
            kind = type(message)
            if kind is m.Hello:
                raise ProtocolError(ErrorCode.BAD_MESSAGE, "hello was said already")
        except ProtocolError as error:
            self._refuse(session, error, m.id_of_untrusted(text))
            return None
        self._stats.messages[m.TAGS[kind]] += 1
        if isinstance(message, m.Ping):
            session.answer(m.Pong(message.t))
            return None
        return message

    async def handle(self, session: Session, message: m.ClientMessage) -> None:
        """Do what a message asks for, and answer it."""
        try:
            reply = await self._handlers[type(message)](session, message)
            if reply is not None:
                session.answer(reply)
        except (Unavailable, NotThere, MailboxFull) as failure:
            error = ProtocolError(*FAILURES[type(failure)])
            self._refuse(session, error, getattr(message, "id", None))
        except ProtocolError as error:
            self._refuse(session, error, getattr(message, "id", None))
        except SessionOver:
            session.cut(CloseCode.SESSION_OVER)

    def _refuse(self, session: Session, error: ProtocolError, request_id: str | None) -> None:
        self._stats.dropped[error.code] += 1
        self._tell("message_refused", {**session.facts(), "code": error.code, "why": error.message})
        session.answer(m.Error(error.code, error.message, error.retryable, request_id))

    def _refuse_flood(self, session: Session) -> None:
        if session.rate.refused > MOST_REFUSED:
            session.cut(CloseCode.FLOOD)
        raise ProtocolError(ErrorCode.RATE_LIMITED, "too many messages; slow down")

    async def _join(self, session: Session, message: m.Join) -> m.Joined:
        grant = session.record.grant
        if grant.room and message.room != grant.room:
            raise ProtocolError(ErrorCode.FORBIDDEN, "the token is not for this room")
        rooms = await self._broker.rooms_of(session.record.session)
        if message.room not in rooms and len(rooms) >= self._most_rooms():
            raise ProtocolError(ErrorCode.TOO_MANY_ROOMS, "leave another room first")
        try:
            peers = await self._broker.join(
                session.record.session,
                message.room,
                message.meta.copy(),  # not to keep the whole frame that it came in
                grant.capacity,
            )
        except RoomFull:
            raise ProtocolError(ErrorCode.ROOM_FULL, "the room is full") from None
        if message.room not in rooms:
            self._tell("room_joined", {**session.facts(), "room": message.room})
        servers, expires_at = self._issue(session)
        return m.Joined(message.id, message.room, peers, servers, expires_at)

    async def _leave(self, session: Session, message: m.Leave) -> m.Ok:
        try:
            await self._broker.leave(session.record.session, message.room, "left", message.id)
        except NotThere:
            raise ProtocolError(ErrorCode.NOT_FOUND, "you are not in this room") from None
        self._tell("room_left", {**session.facts(), "room": message.room})
        return m.Ok(message.id, "done")

    def _signal(self, session: Session, message: m.Signal) -> Awaitable[m.Ok | None]:
        event = m.SignalOut(
            session.record.peer, message.description, message.candidate, message.candidates
        )
        return self._send_to(session, message.to, event, message.id)

    def _message(self, session: Session, message: m.Message) -> Awaitable[m.Ok | None]:
        event = m.MessageOut(session.record.peer, message.data)
        return self._send_to(session, message.to, event, message.id)

    async def _bye(self, session: Session, message: m.Bye) -> None:
        await self._send_to(session, message.to, m.ByeOut(session.record.peer))

    async def _send_to(
        self, session: Session, to: str | None, event: Directed, request: str = ""
    ) -> m.Ok | None:
        """Send; the answer, or None where it comes later."""
        if not session.record.grant.can_publish:
            raise ProtocolError(ErrorCode.FORBIDDEN, "the token does not let you send")
        sender = session.record.session
        try:
            if to is None:
                there = await self._broker.broadcast(sender, event, request)
            else:
                there = await self._broker.send(sender, to, event, request)
        except Later as later:
            task = asyncio.create_task(self._answer_later(session, later.answer, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return None
        return m.Ok(request, "delivered" if there else "queued")

    async def _answer_later(self, session: Session, answer: Awaitable[bool], request: str) -> None:
        try:
            reply = m.Ok(request, "delivered" if await answer else "queued")
        except (Unavailable, NotThere, MailboxFull) as failure:
            error = ProtocolError(*FAILURES[type(failure)])
            self._refuse(session, error, request)
        except SessionOver:
            pass  # whoever asked has been told that it has no session any more
        else:
            session.answer(reply)

    async def _ack(self, session: Session, message: m.Ack) -> None:
        await self._broker.acknowledge(session.record.session, message.seq)

    async def _ice_request(self, session: Session, message: m.Ice) -> m.IceOut:
        servers, expires_at = self._issue(session)
        return m.IceOut(servers, expires_at, message.id)

    async def _path_stats(self, _: Session, message: m.PathStats) -> None:
        if message.path not in PATHS:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, "`path` is host, srflx, prflx or relay")
        self._stats.ice_results[message.path] += 1

    # ICE servers ---------------------------------------------------------------------------

    def push_ice(self, session: Session) -> None:
        """Hand out fresh ICE servers, unasked."""
        servers, expires_at = self._issue(session)
        session.answer(m.IceOut(servers, expires_at))

    def _issue(self, session: Session) -> tuple[list[dict[str, Any]], str]:
        now = time.time()
        record = session.record
        grant = self._ice.issue(record.user, now)
        session.ice_due = now + grant.ttl * ICE_PUSH_AT
        return grant.ice_servers, grant.expires_text
