"""The sessions of this node: how they begin and end, and what the broker has for them.

A local peer takes the same road as a remote one: publish to the broker, which wakes ``deliver``.
"""

import asyncio
import hashlib
import random
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from signaling.admission import Admission, Undecided
from signaling.auth import BadToken, Claims
from signaling.broker.base import (
    Broker,
    Grant,
    Revocation,
    SessionRecord,
    Unavailable,
)
from signaling.connection import Connection, Session
from signaling.holders import Holders
from signaling.ice import IceProvider
from signaling.protocol import FEATURES, peerjs
from signaling.protocol import messages as m
from signaling.protocol.errors import CloseCode, ErrorCode, ProtocolError
from signaling.requests import AWAY, Requests
from signaling.session import RateLimit
from signaling.stats import Stats, Tell, to_nobody

ICE_AGAIN_WITHIN = 10.0
"""Seconds in which a session that comes from another node gets fresh ones: when those that it has
will end, that node knew. Many come at once where it has died."""
UNDECIDED = "nobody can say whether you may come in; try again soon"
STOPPING = "the server is about to stop"
NOT_GOOD = "the join token is not good"
CROWDED = "as many connections of the token's user are open as may be"


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


class Hub:
    """Begins and ends sessions; hands events to their sockets."""

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
        self.requests = Requests(
            broker, ice, stats, tell, lambda: self.settings.max_rooms_per_session
        )
        self._ice = ice
        self._admission = admission
        self._sessions: dict[str, Session] = {}
        self._holders = Holders()
        self.draining = False
        self.on_revoked: Callable[[Revocation], None] = lambda _: None
        """Called for each revocation that is heard of; the relay of this process has to know."""
        self._tasks: set[asyncio.Task[object]] = set()

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
        if session.ice_due is None and await self.broker.rooms_of(wanted.session):
            spread = random.uniform(0, ICE_AGAIN_WITHIN)  # noqa: S311 - spreads load, no secret
            session.ice_due = time.time() + spread
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
            session.cut(CloseCode.REPLACED)
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
        tenant = self._ice.tenant
        if claims is None:
            return Grant(capacity=capacity, resume_window=window, tenant=tenant)
        return Grant(
            room=claims.room,
            subject=claims.subject,
            capacity=capacity if claims.capacity is None else claims.capacity,
            resume_window=window if claims.resume is None else claims.resume,
            can_publish=claims.can_publish,
            tenant=tenant,
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
        if found is not None:
            found.cut(code)

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
                self.requests.push_ice(session)

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
            session.cut(code)
        else:
            # No node's any more, or another's by now: it is ended by whoever has it.
            await self.broker.resume(record.session, record.secret_hash, session.sent)
        reason = "revoked" if code is CloseCode.UNAUTHORIZED else "removed"
        await self.broker.close(record.session, reason)
        session.cut(code)  # also one that came back meanwhile
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
                session.answer(m.Goaway(round(deadline, 3), STOPPING))
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
            session.cut(CloseCode.GOING_AWAY)


def hash_of(secret: str) -> bytes:
    """What is kept of a session's secret."""
    return hashlib.sha256(secret.encode()).digest()
