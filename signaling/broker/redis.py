"""The broker that many nodes share: Redis holds the truth, each node its own sockets.

What a session is sent is in its mailbox before anybody is told of it; a wake-up carries the event
along, and one that does not follow on the last is a gap that is read from the mailbox. Every
step is one script (``lua/``), so that a node that dies leaves nothing half done.
"""

import asyncio
import contextvars
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from msgspec import Raw

from config.webhooks.waiting import Queued
from signaling.broker import wire
from signaling.broker.alone import Alone
from signaling.broker.attached import Attached
from signaling.broker.base import (
    Directed,
    Listener,
    Node,
    NotThere,
    Resumption,
    Revocation,
    RoomFull,
    SessionRecord,
    Taken,
    Unavailable,
)
from signaling.broker.echo import Echoes
from signaling.broker.lease import Lease
from signaling.broker.link import Link
from signaling.broker.primary import Finder
from signaling.broker.sending import Sending
from signaling.broker.sessions import Sessions
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import PeerEntry

LIFE = 300.0
"""Seconds that a key outlives its last refresh, should every node die at once."""
CODES = {
    b"slow": CloseCode.SLOW_READER, b"taken": CloseCode.REPLACED, b"over": CloseCode.SESSION_OVER,
}  # fmt: skip
"""Why a socket is to be cut, as scripts say it."""


class RedisBroker:
    """A node's view of the shared broker."""

    waits = True

    def __init__(
        self,
        finder: Finder,
        prefix: str,
        most_messages: int,
        most_bytes: int,
        *,
        lease: float,
        webhooks: bool | None = False,
    ) -> None:
        """Prepare to start.

        :param finder: knows where Redis is.
        :param prefix: of all keys; nodes with the same one share rooms.
        :param lease: in seconds; who says nothing for longer counts as dead.
        """
        self.node = secrets.token_hex(8)
        limits = (most_messages, most_bytes, int(LIFE * 1000))
        self._link = Link(
            finder, "{" + prefix + "}", self.node, limits, self._on_wake, self._live,
            webhooks=webhooks,
        )  # fmt: skip
        self._sessions = Sessions(self.node, self._link)
        self._attached = self._sessions.attached
        self._echoes = Echoes()
        alone = self._alone = Alone(self._attached, most_messages, most_bytes)
        self._sending = Sending(self._sessions, self._echoes, alone)
        self._lease = Lease(lease, self._link, self._sessions, alone, self._echoes)

    async def start(self, listener: Listener) -> None:
        """Begin to work; also where Redis is away, which ``is_up`` tells."""
        self._sessions.listener = listener
        await self._link.start()

    async def _live(self) -> None:
        await self._lease.live()

    async def renew(self) -> None:
        """Hand on whatever was published to this node before. :raises Unavailable, TimeoutError:"""
        await self._lease.renew()

    async def stop(self) -> None:
        """Suspend what is attached here, so that nobody waits for the lease to end."""
        with suppress(Unavailable, TimeoutError):
            await self._lease.give_up()
        self._sessions.stop()
        await self._link.stop()
        self._sessions.reconciler.give_up()

    def is_up(self) -> bool:
        """Whether Redis answers, and our sessions are put right there."""
        return self._sessions.is_up

    # Sessions ------------------------------------------------------------------------------

    async def open(self, record: SessionRecord) -> None:
        """Begin a session."""
        try:
            opened = await self._call(
                "open", record.session, wire.record_bytes(record), record.peer,
                record.secret_hash.hex(), round(record.grant.resume_window * 1000),
                wire.text_of(record.user),
            )  # fmt: skip
        except BaseException:
            self._sessions.coming.doubtful.add(record.session)
            raise
        if not opened:
            raise Taken
        self._attached[record.session] = Attached(record, self.node, 1, 0)

    async def resume(self, session: str, secret_hash: bytes, seq: int | None) -> Resumption | None:
        """Take a session over, from whichever node; None where it cannot go on without a loss."""
        if not wire.is_token(session):
            return None
        with self._sessions.coming.resuming(session) as woken:
            reply = await self._call(
                "attach", session, secret_hash.hex(), "" if seq is None else seq, ""
            )
        if reply is None:
            return None
        # Nothing is awaited from here until the hub has the socket: no wake-up comes between.
        sessions = self._sessions
        data, epoch, identities, missed, seq, peers = reply
        attached = Attached(wire.parse_record(data), self.node, epoch, seq, time.monotonic())
        before = self._attached.get(session)
        if before is not None:
            sessions.rosters.leave(before.rooms)
        for identity, there in zip(identities, peers, strict=True):
            sessions.enter(attached, wire.room_of(identity), (peer.decode() for peer in there))
        found: list[tuple[int, bytes]] = []

        def find(_: str, number: int, frame: bytes) -> None:
            sessions.rosters.hear(frame)
            found.append((number, frame))

        attached.catch_up(wire.entries(missed), find)
        for number, frame in woken:
            attached.take(number, frame, find)
        self._attached[session] = attached
        sessions.mind_gap(attached)
        sessions.coming.doubtful.discard(session)
        if code := sessions.coming.end_of(session, attached.owner):
            asyncio.get_running_loop().call_soon(sessions.cut, attached, code)
        return Resumption(attached.record, found, seq)

    async def suspend(self, session: str, now: float) -> None:
        """The socket is lost; while Redis is away that is remembered."""
        await self._sessions.end(session, "")

    async def close(self, session: str, reason: str) -> None:
        """End a session; while Redis is away that is remembered."""
        await self._sessions.end(session, reason)

    async def reap(self, now: float) -> int:
        """End what is over, of whichever node."""
        ended = 0
        with suppress(Unavailable):
            more = 1
            while more:
                closed, more = await self._call("reap")
                ended += closed
        return ended

    # Rooms ---------------------------------------------------------------------------------

    async def join(
        self, session: str, room: str, meta: Raw, capacity: int, *, quiet: bool = False
    ) -> list[PeerEntry]:
        """Enter a room."""
        attached = self._sessions.of(session)
        attached.joining += 1
        try:
            with self._echoes.expect() as echo, self._in_doubt(attached):
                reply = await self._call(
                    "join", attached.owner, session, wire.room_key(room),
                    wire.identity_bytes(room, attached.record, meta), capacity,
                    "q" if quiet else "", echo.ticket,
                )  # fmt: skip
                if isinstance(reply, list):
                    await echo.all(reply[2])
        finally:
            # Not now: whoever asked answers its client first.
            asyncio.get_running_loop().call_soon(
                self._joined, attached, context=contextvars.Context()
            )
        if reply == b"full":
            raise RoomFull
        if reply == b"gone":
            raise self._sessions.gone(attached)
        others = wire.roster(reply[0], reply[1])
        # Else its client came back meanwhile, and Redis has said then which rooms it is in.
        if self._attached.get(session) is attached and room not in attached.rooms:
            self._sessions.enter(attached, room, (other.id for other in others))
        return others

    def _joined(self, attached: Attached) -> None:
        attached.joined(self._sessions.deliver)

    async def leave(self, session: str, room: str, reason: str, request: str = "") -> None:
        """Leave a room."""
        attached = self._sessions.of(session)
        with self._in_doubt(attached, request):
            reply = await self._call(
                "leave", attached.owner, session, wire.room_key(room), reason, request
            )
        if reply == b"gone":
            raise self._sessions.gone(attached)
        if reply == b"absent":
            raise NotThere
        if self._attached.get(session) is attached and room in attached.rooms:
            attached.rooms.discard(room)
            self._sessions.rosters.leave([room])

    async def rooms_of(self, session: str) -> list[str]:
        """The rooms that a session is in: only its own node changes them."""
        attached = self._attached.get(session)
        return sorted(attached.rooms) if attached else []

    async def quiet_names(self, room: str) -> list[str]:
        """The names of those who are quietly in a room."""
        return [
            wire.name_of(identity) for identity in await self._call("quiet", wire.room_key(room))
        ]

    async def nodes(self) -> list[Node]:
        """The nodes that live, this one first."""
        reply = await self._call("nodes")
        found = [
            Node(identity.decode(), name.decode(errors="replace"), sessions)
            for identity, name, sessions in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        ]
        return sorted(found, key=lambda node: (node.id != self.node, node.name, node.id))

    def counts(self) -> tuple[int, int]:
        """(rooms, peers in rooms) of this node's sockets."""
        rooms = [room for attached in self._attached.values() for room in attached.rooms]
        return len(set(rooms)), len(rooms)

    # Messages ------------------------------------------------------------------------------

    async def send(
        self, session: str, to: str, event: Directed, request: str = "", *, patient: bool = True
    ) -> bool:
        """Put an event into one peer's mailbox; while Redis is away, hand it on if we can."""
        return await self._sending.send(session, to, event, request, patient=patient)

    async def broadcast(self, session: str, event: Directed, request: str = "") -> bool:
        """Put an event into the mailbox of everyone who shares a room; likewise."""
        return await self._sending.broadcast(session, event, request)

    @contextmanager
    def _in_doubt(self, attached: Attached, request: str = "") -> Iterator[None]:
        """Remember of a call that is not answered that it may have been done."""
        asked = self._sessions.is_up
        try:
            yield
        except Unavailable:
            if asked and not self._sessions.is_up:
                attached.unsure = True
                attached.doubt(request)
            raise
        attached.believe(request)

    async def acknowledge(self, session: str, seq: int) -> None:
        """Everything up to ``seq`` has arrived; one that is not kept is made up for by the next."""
        attached = self._attached.get(session)
        if attached is not None and seq <= attached.last:
            if attached.ledger is not None:
                attached.ledger.acknowledge(seq)
                self._alone.go_on(attached, self._sessions.deliver)
            with suppress(Unavailable):
                await self._call("acknowledge", attached.owner, session, seq)

    async def revoke(self, revocation: Revocation) -> None:
        """Tell every node, and Redis for those that come later."""
        user, until, spent = revocation.user, revocation.until, revocation.spent
        life = max(0, round((max(until, spent) - time.time()) * 1000))
        await self._call("revoke", user, wire.text_of(user), f"{until:.3f}", f"{spent:.3f}", life)

    # For webhooks --------------------------------------------------------------------------

    async def take_events(self, most: int, lease: float) -> list[Queued]:
        """Events that are due."""
        reply = await self._call("webhooks_take", most, round(lease * 1000))
        parts = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return [Queued(event_id.decode(), tries, event) for event_id, tries, event in parts]

    async def end_events(self, ids: Sequence[str]) -> None:
        """They are delivered, or given up."""
        await self._call("webhooks_done", *ids)

    async def retry_event(self, event_id: str, delay: float) -> None:
        """Try again after a while."""
        await self._call("webhooks_again", event_id, round(delay * 1000))

    # From Redis ----------------------------------------------------------------------------

    def _on_wake(self, data: bytes) -> None:
        """Take what was published to this node."""
        kind, _, rest = data.partition(b" ")
        if kind == b"e":
            session, seq, frame = rest.split(b" ", 2)
            self._sessions.arrived(session.decode(), int(seq), frame)
        elif kind == b"m":
            ticket, session, seq, frame = rest.split(b" ", 3)
            self._sessions.arrived(session.decode(), int(seq), frame)
            self._echoes.hear(ticket.decode())
        elif kind == b"x":
            session, why, owner = rest.split(b" ")
            self._sessions.over(session.decode(), owner.decode(), CODES[why])
        elif kind == b"r":
            self._sessions.revoked(rest)
        else:
            self._lease.woken()

    async def _call(self, script: str, *arguments: Any) -> Any:
        return await self._sessions.call(script, *arguments)
