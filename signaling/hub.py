"""The sessions of this node: what their clients ask for, and what the broker has for them.

A local peer takes the same road as a remote one: publish to the broker, which wakes ``deliver``.
"""

import asyncio
import hashlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from signaling.admission import Admission, Undecided
from signaling.auth import BadToken, Claims
from signaling.broker.base import (
    Broker,
    Directed,
    Grant,
    Later,
    MailboxFull,
    NotThere,
    Revocation,
    RoomFull,
    SessionOver,
    SessionRecord,
    Unavailable,
)
from signaling.holders import Holders
from signaling.ice import IceProvider
from signaling.protocol import FEATURES, peerjs
from signaling.protocol import messages as m
from signaling.protocol.errors import CloseCode, ErrorCode, ProtocolError
from signaling.session import RateLimit
from signaling.stats import PATHS, Stats, Tell, to_nobody

ICE_PUSH_AT = 0.6
"""Of a credential's lifetime: fresh ones are pushed then."""
MOST_REFUSED = 100
"""Messages over the rate limit in a row that close a socket for good."""
AWAY = "the broker is away; try again soon"
UNDECIDED = "nobody can say whether you may come in; try again soon"
STOPPING = "the server is about to stop"
NOT_GOOD = "the join token is not good"
GONE = "there is no such peer in your rooms"
CROWDED = "as many connections of the token's user are open as may be"
CUTS = {
    CloseCode.SLOW_READER: "events were not acknowledged in time",
    CloseCode.REPLACED: "the session goes on over another socket",
    CloseCode.SESSION_OVER: "the session is over",
    CloseCode.REMOVED: "an operator has ended the session",
    CloseCode.UNAUTHORIZED: "an operator has revoked the user",
}
"""What a socket is told that the broker, or an operator, has cut."""
FAILURES: dict[type[Exception], tuple[ErrorCode, str]] = {
    Unavailable: (ErrorCode.UNAVAILABLE, AWAY),
    NotThere: (ErrorCode.NOT_FOUND, GONE),
    MailboxFull: (ErrorCode.QUEUE_FULL, "the peer is away and its queue is full"),
}
"""What a client is told of what the broker could not do."""


class HubSettings(NamedTuple):
    """What the hub is told of the settings; times in seconds."""

    resume_window: float
    heartbeat: float
    max_message_bytes: int
    max_messages_per_second: int
    max_message_burst: int
    max_rooms_per_session: int
    room_capacity: int
    max_connections_per_user: int
    """0: any number."""


class Connection(Protocol):
    """A client's socket, as the hub sees it."""

    native: bool
    """Whether it speaks ``icebroker.v1``: others are told nothing but events."""

    def begin(self, frames: Sequence[bytes]) -> None:
        """Queue the first frames, whatever the limits of ``send``; once, before anything else."""

    def send(self, frame: bytes, since: float | None = None) -> None:
        """Queue a text frame; a reader that is too slow is cut.

        :param since: of an event, when it came to this node (monotonic time): it is measured when
            it has gone out.
        """

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the socket soon; returns at once."""


class Session:
    """A session whose socket is (or was last) at this node."""

    def __init__(self, record: SessionRecord, connection: Connection, rate: RateLimit) -> None:
        self.record = record
        self.connection: Connection | None = connection
        self.rate = rate
        self.sent = 0
        """The ``seq`` of the last event handed to the socket."""
        self.ice_due: float | None = None
        """Unix time at which fresh ICE servers are pushed."""
        self.forget_at: float | None = None
        """Monotonic time; set while the socket is lost."""

    @property
    def user(self) -> str:
        """Whom the relay's quota counts, and an operator can revoke."""
        return self.record.grant.subject or self.record.peer

    def facts(self) -> dict[str, object]:
        """What an operator is told of it wherever it is named."""
        return {"peer": self.record.peer, "name": self.record.name, "user": self.user}


class Hub:
    """Answers clients; hands events to their sockets."""

    def __init__(
        self,
        settings: HubSettings,
        broker: Broker,
        ice: IceProvider,
        admission: Admission,
        stats: Stats,
        tell: Tell = to_nobody,
    ) -> None:
        self.tell = tell
        self.settings = settings
        """May be replaced at any time."""
        self.broker = broker
        self._ice = ice
        self._admission = admission
        self._stats = stats
        self._sessions: dict[str, Session] = {}
        self._holders = Holders()
        self.draining = False
        self.on_revoked: Callable[[Revocation], None] = lambda _: None
        """Called for each revocation that is heard of; the relay of this process has to know."""
        self._tasks: set[asyncio.Task[object]] = set()
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

    # Beginning -----------------------------------------------------------------------------

    async def hello(self, connection: Connection, hello: m.Hello) -> Session:
        """Begin a session, or go on with one.

        A token is for beginning: a call that outlives it must not end with a socket that is lost,
        and the session's own secret says who comes back.

        :raises ProtocolError: UNAUTHORIZED or UNAVAILABLE; the socket is to be closed.
        """
        try:
            session = await self._resume(connection, hello)
            if session is None:
                claims = await self.admit(hello.token, hello.room, hello.name)
                session = await self._begin(connection, hello, claims)
        except Unavailable:
            raise ProtocolError(ErrorCode.UNAVAILABLE, AWAY) from None
        return session

    async def admit(
        self, token: str | None, room: str | None = None, name: str = ""
    ) -> Claims | None:
        """What a client may do; None where everybody may come in.

        :raises ProtocolError: UNAUTHORIZED, or UNAVAILABLE where nobody could say.
        """
        try:
            return await self._admission.admit(token or "", room or "", name)
        except BadToken as error:
            # Every forger gets the same answer; which of its faults it is, operators are told.
            raise ProtocolError(ErrorCode.UNAUTHORIZED, NOT_GOOD, f"{NOT_GOOD}: {error}") from None
        except Undecided:
            raise ProtocolError(ErrorCode.UNAVAILABLE, UNDECIDED) from None

    async def _begin(
        self, connection: Connection, hello: m.Hello, claims: Claims | None
    ) -> Session:
        secret = secrets.token_urlsafe(24)
        record = SessionRecord(
            session=secrets.token_urlsafe(16),
            secret_hash=hash_of(secret),
            peer=secrets.token_urlsafe(16),
            name=claims.name if claims and claims.name else hello.name,
            grant=self.grant(claims),
        )
        self.refuse_crowd(record)
        await self.broker.open(record)
        session = self.attach(connection, record)
        connection.begin([m.encode(self._welcome(record, secret, resumed=False))])
        self.tell("session_opened", session.facts())
        return session

    async def _resume(self, connection: Connection, hello: m.Hello) -> Session | None:
        wanted = hello.resume
        if wanted is None or wanted.session.startswith(peerjs.NAME):
            return None
        resumption = await self.broker.resume(wanted.session, hash_of(wanted.secret), wanted.seq)
        if resumption is None:
            return None
        session = await self.attach_again(connection, resumption.record)
        welcome = m.encode(self._welcome(resumption.record, wanted.secret, resumed=True))
        connection.begin([welcome, *(frame for _, frame in resumption.missed)])
        session.sent = resumption.missed[-1][0] if resumption.missed else wanted.seq
        return session

    def refuse_crowd(self, record: SessionRecord) -> None:
        """See that a session may begin. :raises ProtocolError: TOO_MANY_CONNECTIONS."""
        if not self._holders.has_room(record.grant, self.settings.max_connections_per_user):
            raise ProtocolError(ErrorCode.TOO_MANY_CONNECTIONS, CROWDED)

    async def attach_again(self, connection: Connection, record: SessionRecord) -> Session:
        """Attach a session that came back.

        :raises ProtocolError: UNAVAILABLE: sockets of its user have to end first. Who began
            sessions by dropping others does not get them all; it may try again in its window.
        """
        present = self._sessions.get(record.session)
        if present is None or present.connection is None:
            try:
                self.refuse_crowd(record)
            except ProtocolError:
                await self.broker.suspend(record.session, time.monotonic())
                raise ProtocolError(ErrorCode.UNAVAILABLE, CROWDED) from None
        return self.attach(connection, record)

    def attach(self, connection: Connection, record: SessionRecord) -> Session:
        """Have a session's events go to a socket from now on; its last one is closed."""
        session = self._sessions.get(record.session)
        if session is None:
            now, limits = time.monotonic(), self.settings
            rate = RateLimit(limits.max_messages_per_second, limits.max_message_burst, now)
            session = self._sessions[record.session] = Session(record, connection, rate)
            self._holders.add(record.grant)
        elif session.connection is not None:
            session.connection.close(CloseCode.REPLACED, CUTS[CloseCode.REPLACED])
        else:
            self._holders.add(record.grant)
        session.connection = connection
        session.forget_at = None
        if self._admission.is_revoked(session.user):
            # Heard of while the broker was asked to begin it, or to go on with it.
            self._run(self._end_all(session.user))
        return session

    def grant(self, claims: Claims | None) -> Grant:
        """What a new session may do."""
        window, capacity = self.settings.resume_window, self.settings.room_capacity
        if claims is None:
            return Grant(capacity=capacity, resume_window=window)
        return Grant(
            room=claims.room,
            subject=claims.subject,
            capacity=capacity if claims.capacity is None else claims.capacity,
            resume_window=window if claims.resume is None else claims.resume,
            can_publish=claims.can_publish,
        )

    def _welcome(self, record: SessionRecord, secret: str, *, resumed: bool) -> m.Welcome:
        settings = self.settings
        return m.Welcome(
            session=record.session,
            secret=secret,
            peer=record.peer,
            resumed=resumed,
            resume_window=record.grant.resume_window,
            heartbeat=settings.heartbeat,
            limits={
                "messageBytes": settings.max_message_bytes,
                "metaBytes": m.MOST_META,
                "messagesPerSecond": settings.max_messages_per_second,
                "burst": settings.max_message_burst,
                "rooms": settings.max_rooms_per_session,
            },
            features=FEATURES,
        )

    # A message -----------------------------------------------------------------------------

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
            self._answer(session, m.Pong(message.t))
            return None
        return message

    async def handle(self, session: Session, message: m.ClientMessage) -> None:
        """Do what a message asks for, and answer it."""
        try:
            reply = await self._handlers[type(message)](session, message)
            if reply is not None and session.connection is not None:
                session.connection.send(m.encode(reply))
        except (Unavailable, NotThere, MailboxFull) as failure:
            error = ProtocolError(*FAILURES[type(failure)])
            self._refuse(session, error, getattr(message, "id", None))
        except ProtocolError as error:
            self._refuse(session, error, getattr(message, "id", None))
        except SessionOver:
            if session.connection:
                session.connection.close(CloseCode.SESSION_OVER, CUTS[CloseCode.SESSION_OVER])

    def _answer(self, session: Session, message: m.ServerMessage) -> None:
        if session.connection:
            session.connection.send(m.encode(message))

    def _refuse(self, session: Session, error: ProtocolError, request_id: str | None) -> None:
        self._stats.dropped[error.code] += 1
        self.tell("message_refused", {**session.facts(), "code": error.code, "why": error.message})
        refusal = m.Error(error.code, error.message, error.retryable, request_id)
        self._answer(session, refusal)

    def _refuse_flood(self, session: Session) -> None:
        if session.rate.refused > MOST_REFUSED and session.connection:
            session.connection.close(CloseCode.FLOOD, "too many messages")
        raise ProtocolError(ErrorCode.RATE_LIMITED, "too many messages; slow down")

    async def _join(self, session: Session, message: m.Join) -> m.Joined:
        grant = session.record.grant
        if grant.room and message.room != grant.room:
            raise ProtocolError(ErrorCode.FORBIDDEN, "the token is not for this room")
        rooms = await self.broker.rooms_of(session.record.session)
        if message.room not in rooms and len(rooms) >= self.settings.max_rooms_per_session:
            raise ProtocolError(ErrorCode.TOO_MANY_ROOMS, "leave another room first")
        try:
            peers = await self.broker.join(
                session.record.session,
                message.room,
                message.meta.copy(),  # not to keep the whole frame that it came in
                grant.capacity,
            )
        except RoomFull:
            raise ProtocolError(ErrorCode.ROOM_FULL, "the room is full") from None
        if message.room not in rooms:
            self.tell("room_joined", {**session.facts(), "room": message.room})
        servers, expires_at = self._issue(session)
        return m.Joined(message.id, message.room, peers, servers, expires_at)

    async def _leave(self, session: Session, message: m.Leave) -> m.Ok:
        try:
            await self.broker.leave(session.record.session, message.room, "left", message.id)
        except NotThere:
            raise ProtocolError(ErrorCode.NOT_FOUND, "you are not in this room") from None
        self.tell("room_left", {**session.facts(), "room": message.room})
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
                there = await self.broker.broadcast(sender, event, request)
            else:
                there = await self.broker.send(sender, to, event, request)
        except Later as later:
            self._run(self._answer_later(session, later.answer, request))
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
            self._answer(session, reply)

    async def _ack(self, session: Session, message: m.Ack) -> None:
        await self.broker.acknowledge(session.record.session, message.seq)

    async def _ice_request(self, session: Session, message: m.Ice) -> m.IceOut:
        servers, expires_at = self._issue(session)
        return m.IceOut(servers, expires_at, message.id)

    async def _path_stats(self, _: Session, message: m.PathStats) -> None:
        if message.path not in PATHS:
            raise ProtocolError(ErrorCode.BAD_MESSAGE, "`path` is host, srflx, prflx or relay")
        self._stats.ice_results[message.path] += 1

    def _issue(self, session: Session) -> tuple[list[dict[str, Any]], str]:
        now = time.time()
        record = session.record
        grant = self._ice.issue(record.grant.subject or record.peer, now)
        session.ice_due = now + grant.ttl * ICE_PUSH_AT
        return grant.ice_servers, grant.expires_text

    # From the broker -----------------------------------------------------------------------

    def deliver(self, session: str, seq: int, frame: bytes) -> None:
        """Hand an event to a socket of ours."""
        found = self._sessions.get(session)
        if found is not None and found.connection is not None and seq > found.sent:
            found.sent = seq
            found.connection.send(frame, time.monotonic())

    def cut(self, session: str, code: CloseCode) -> None:
        """Close a session's socket, as the broker says."""
        found = self._sessions.get(session)
        if found is not None and found.connection is not None:
            found.connection.close(code, CUTS[code])

    # Ending --------------------------------------------------------------------------------

    async def lost(self, session: Session, connection: Connection, *, for_good: bool) -> None:
        """A socket is gone: for good where the client said so, else until it resumes."""
        if session.connection is not connection:
            return  # it was replaced, and what it had lives on over the new one
        session.connection = None
        self._holders.remove(session.record.grant)
        now = time.monotonic()
        if for_good:
            self._forget(session, "left")
            await self.broker.close(session.record.session, "left")
        else:
            session.forget_at = now + session.record.grant.resume_window
            await self.broker.suspend(session.record.session, now)

    async def tick(self) -> None:
        """Once a second: end what is over, push fresh ICE servers."""
        now, wall = time.monotonic(), time.time()
        await self.broker.reap(now)
        for session in list(self._sessions.values()):
            if session.forget_at is not None and session.forget_at <= now:
                self._forget(session, "away")
            elif session.connection and session.ice_due is not None and session.ice_due <= wall:
                servers, expires_at = self._issue(session)
                self._answer(session, m.IceOut(servers, expires_at))

    def _forget(self, session: Session, reason: str) -> None:
        if self._sessions.pop(session.record.session, None) is not None:
            self.tell("session_closed", {**session.facts(), "reason": reason})

    # For operators -------------------------------------------------------------------------

    async def present(self) -> list[tuple[Session, list[str]]]:
        """The sessions of this node, each with its rooms."""
        return [
            (session, await self.broker.rooms_of(session.record.session))
            for session in list(self._sessions.values())
        ]

    async def remove(self, session: Session, code: CloseCode = CloseCode.REMOVED) -> None:
        """End a session now: it may not resume, and its rooms hear that it has left.

        What it was handed of the relay's credentials ends as well, and what it relays.

        :raises Unavailable: the broker is away, and nothing has happened.
        """
        record = session.record
        if code is CloseCode.REMOVED:
            spent = self._ice.expiry(time.time())
            await self.broker.revoke(Revocation(session.user, 0.0, spent))
        if session.connection is not None:
            # First of all: the broker, too, may cut the socket of a session that is over.
            session.connection.close(code, CUTS[code])
        else:
            # No node's any more, or another's by now: it is ended by whoever has it.
            await self.broker.resume(record.session, record.secret_hash, session.sent)
        reason = "revoked" if code is CloseCode.UNAUTHORIZED else "removed"
        await self.broker.close(record.session, reason)
        if session.connection is not None:
            session.connection.close(code, CUTS[code])  # also one that came back meanwhile
        self._forget(session, reason)

    async def revoke(self, user: str, until: float) -> int:
        """End a user's sessions at every node, and let it begin nothing until then (Unix time; 0:
        let it begin again). Relays that hear of it end its allocations and credentials.

        :returns: how many sessions of this node ended.
        :raises Unavailable: the broker is away; at this node it is done.
        """
        self._admission.revoke(user, until)
        ended = await self._end_all(user) if until else 0
        spent = self._ice.expiry(time.time()) if until else 0.0
        await self.broker.revoke(Revocation(user, until, spent))
        return ended

    def revoked(self, revocation: Revocation) -> None:
        """Something was revoked, here or at another node."""
        self._admission.revoke(revocation.user, revocation.until)
        if revocation.until > time.time():
            self._run(self._end_all(revocation.user))
        self.on_revoked(revocation)

    def _run(self, action: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_all(self, user: str) -> int:
        meant = [session for session in list(self._sessions.values()) if session.user == user]
        for session in meant:
            await self.remove(session, CloseCode.UNAUTHORIZED)
        return len(meant)

    def drain(self, seconds: float) -> None:
        """Ask every client to be elsewhere soon, each at a time of its own."""
        self.draining = True
        for session in self._sessions.values():
            deadline = random.uniform(0.2, 0.9) * seconds  # noqa: S311 - spreads load, no secret
            if session.connection is None or session.connection.native:
                self._answer(session, m.Goaway(round(deadline, 3), STOPPING))
            else:
                close = session.connection.close
                asyncio.get_running_loop().call_later(
                    deadline, close, CloseCode.GOING_AWAY, STOPPING
                )

    async def acknowledge(self, session: Session) -> None:
        """Everything that was handed to the socket has arrived: for clients that do not say so."""
        await self.broker.acknowledge(session.record.session, session.sent)

    def close_all(self) -> None:
        """Close every socket; the clients reconnect elsewhere."""
        for session in self._sessions.values():
            if session.connection:
                session.connection.close(CloseCode.GOING_AWAY, "the server stops")


def hash_of(secret: str) -> bytes:
    """What is kept of a session's secret."""
    return hashlib.sha256(secret.encode()).digest()
