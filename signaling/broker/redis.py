"""The broker that many nodes share: Redis holds the truth, each node its own sockets.

What a session is sent is in its mailbox before anybody is told of it; a wake-up carries the event
along, and one that does not follow on the last is a gap that is read from the mailbox. Every
step is one script (``lua/``), so that a node that dies leaves nothing half done.
"""

import asyncio
import contextvars
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from msgspec import Raw

from signaling.broker import wire
from signaling.broker.alone import Alone, is_quiet
from signaling.broker.attached import Attached
from signaling.broker.base import (
    Directed,
    Listener,
    Node,
    NotThere,
    Queued,
    Resumption,
    Revocation,
    RoomFull,
    SessionOver,
    SessionRecord,
    Taken,
    Unavailable,
)
from signaling.broker.coming import Coming
from signaling.broker.echo import Echoes
from signaling.broker.link import Link
from signaling.broker.primary import Finder
from signaling.broker.reconcile import Reconciler
from signaling.broker.rosters import Rosters
from signaling.broker.sending import Home, Sending
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import PeerEntry

log = structlog.get_logger("signaling.redis")

RENEWALS = 4
"""Renewals in the time of one lease."""
ANSWER = 3.0
"""Seconds in which nothing comes, after which whoever waits for it takes Redis to be away."""
LOOKS = 6
"""Into which they are divided: a time in which this process slept counts as one of them at most."""
PUT_RIGHT = 30.0
"""Seconds that it may take to put all sessions right after Redis is back."""
LIFE = 300.0
"""Seconds that a key outlives its last refresh, should every node die at once."""
REFRESH = 30
"""Renewals between two refreshes of all keys of this node's sessions."""
REFRESHED_AT_ONCE = 100
RETURN_RATE = 2000
"""Sockets a second that are closed when their sessions are lost: they all come back."""
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
        self._name = socket.gethostname()
        self._lease = lease
        limits = (most_messages, most_bytes, int(LIFE * 1000))
        self._link = Link(
            finder, "{" + prefix + "}", self.node, limits, self._on_wake, self._live,
            webhooks=webhooks,
        )  # fmt: skip
        self._listener: Listener | None = None
        self._attached: dict[str, Attached] = {}
        self._resuming: dict[str, list[list[tuple[int, bytes]]]] = {}
        """Wake-ups for sessions that are on their way to this node, one list an attempt."""
        self._coming = Coming()
        self._rosters = Rosters()
        self._doubtful: set[str] = set()
        """Sessions that may be ours without our knowing: the answer did not come."""
        self._up = False
        self._echoes = Echoes()
        self._alone = Alone(self._attached, most_messages, most_bytes)
        home = Home(self.node, self._call, self.is_up, self._of, self._gone, self._deliver)
        self._sending = Sending(home, self._echoes, self._alone, self._rosters)
        self._reconciler = Reconciler(self._link, self._attached)
        self._woken = asyncio.Event()
        self._readers: set[asyncio.Task[None]] = set()

    async def start(self, listener: Listener) -> None:
        """Begin to work; also where Redis is away, which ``is_up`` tells."""
        self._listener = listener
        await self._link.start()

    async def stop(self) -> None:
        """Suspend what is attached here, so that nobody waits for the lease to end."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(ANSWER):
                while self._up and await self._link.call("delist"):
                    pass
        self._up = False
        for task in list(self._readers):
            task.cancel()
        await self._link.stop()
        self._reconciler.give_up()

    def is_up(self) -> bool:
        """Whether Redis answers, and our sessions are put right there."""
        return self._up

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
            self._doubtful.add(record.session)
            raise
        if not opened:
            raise Taken
        self._attached[record.session] = Attached(record, self.node, 1, 0)

    async def resume(self, session: str, secret_hash: bytes, seq: int | None) -> Resumption | None:
        """Take a session over, from whichever node; None where it cannot go on without a loss."""
        if not wire.is_token(session):
            return None
        woken: list[tuple[int, bytes]] = []
        self._resuming.setdefault(session, []).append(woken)
        try:
            with self._coming.expecting(session):
                reply = await self._call(
                    "attach", session, secret_hash.hex(), "" if seq is None else seq, ""
                )
        except BaseException:
            self._doubtful.add(session)
            raise
        finally:
            self._resuming[session].remove(woken)
            if not self._resuming[session]:
                del self._resuming[session]
        if reply is None:
            return None
        # Nothing is awaited from here until the hub has the socket: no wake-up comes between.
        data, epoch, identities, missed, seq, peers = reply
        attached = Attached(wire.parse_record(data), self.node, epoch, seq, time.monotonic())
        before = self._attached.get(session)
        if before is not None:
            self._rosters.leave(before.rooms)
        for identity, there in zip(identities, peers, strict=True):
            self._enter(attached, wire.room_of(identity), (peer.decode() for peer in there))
        found: list[tuple[int, bytes]] = []

        def find(_: str, number: int, frame: bytes) -> None:
            self._rosters.hear(frame)
            found.append((number, frame))

        attached.catch_up(wire.entries(missed), find)
        for number, frame in woken:
            attached.take(number, frame, find)
        self._attached[session] = attached
        self._mind_gap(attached)
        self._doubtful.discard(session)
        if code := self._coming.end_of(session, attached.owner):
            asyncio.get_running_loop().call_soon(self._cut, attached, code)
        return Resumption(attached.record, found, seq)

    async def suspend(self, session: str, now: float) -> None:
        """The socket is lost; while Redis is away that is remembered."""
        await self._end(session, "")

    async def close(self, session: str, reason: str) -> None:
        """End a session; while Redis is away that is remembered."""
        await self._end(session, reason)

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
        attached = self._of(session)
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
            raise self._gone(attached)
        others = wire.roster(reply[0], reply[1])
        # Else its client came back meanwhile, and Redis has said then which rooms it is in.
        if self._attached.get(session) is attached and room not in attached.rooms:
            self._enter(attached, room, (other.id for other in others))
        return others

    def _enter(self, attached: Attached, room: str, others: Iterable[str]) -> None:
        attached.rooms.add(room)
        # Nobody would hear that a quiet one has gone.
        self._rosters.enter(room, [] if is_quiet(attached) else [attached.record.peer, *others])

    def _joined(self, attached: Attached) -> None:
        attached.joined(self._deliver)

    async def leave(self, session: str, room: str, reason: str, request: str = "") -> None:
        """Leave a room."""
        attached = self._of(session)
        with self._in_doubt(attached, request):
            reply = await self._call(
                "leave", attached.owner, session, wire.room_key(room), reason, request
            )
        if reply == b"gone":
            raise self._gone(attached)
        if reply == b"absent":
            raise NotThere
        if self._attached.get(session) is attached and room in attached.rooms:
            attached.rooms.discard(room)
            self._rosters.leave([room])

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
        asked = self._up
        try:
            yield
        except Unavailable:
            if asked and not self._up:
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
                self._alone.go_on(attached, self._deliver)
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
            self._arrived(session.decode(), int(seq), frame)
        elif kind == b"m":
            ticket, session, seq, frame = rest.split(b" ", 3)
            self._arrived(session.decode(), int(seq), frame)
            self._echoes.hear(ticket.decode())
        elif kind == b"x":
            session, why, owner = rest.split(b" ")
            self._let_cut(session.decode(), owner.decode(), CODES[why])
        elif kind == b"r":
            self._revoked(rest)
        else:
            self._woken.set()

    def _let_cut(self, session: str, owner: str, code: CloseCode) -> None:
        attached = self._attached.get(session)
        if attached is not None and attached.owner == owner:
            self._cut(attached, code)
        else:
            self._coming.heard(session, owner, code)

    def _revoked(self, data: bytes) -> None:
        if self._listener is not None:
            self._listener.revoked(wire.parse_revocation(data))

    def _arrived(self, session: str, seq: int, frame: bytes) -> None:
        for woken in self._resuming.get(session, ()):
            woken.append((seq, frame))
        attached = self._attached.get(session)
        if attached is not None:
            attached.take(seq, frame, self._deliver)
            self._mind_gap(attached)

    def _deliver(self, session: str, seq: int, frame: bytes) -> None:
        self._rosters.hear(frame)
        if self._listener is not None:
            self._listener.deliver(session, seq, frame)

    def _mind_gap(self, attached: Attached) -> None:
        """Where something was missed, have it read; one reader at a time keeps the order."""
        if attached.has_gap and not attached.reading:
            attached.reading = True
            task = asyncio.create_task(self._read_gap(attached))
            self._readers.add(task)
            task.add_done_callback(self._readers.discard)

    async def _read_gap(self, attached: Attached) -> None:
        """Hand on what was missed from the mailbox; what cannot be read is had by a resume."""
        session = attached.record.session
        try:
            while attached.has_gap and self._attached.get(session) is attached:
                before, owner = attached.last, attached.owner
                reply = await self._call("missed", owner, session, before)
                if self._attached.get(session) is attached:
                    attached.catch_up(wire.entries(reply), self._deliver)
                if (attached.last, attached.owner) == (before, owner):
                    self._cut(attached, CloseCode.SESSION_OVER)
        except Unavailable:
            pass  # the next event, or the next renewal, has it read
        finally:
            attached.reading = False

    # Being alive ---------------------------------------------------------------------------

    async def _live(self) -> None:
        """Runs while the link is open. :raises Unavailable, TimeoutError: it is no good."""
        self._alone.coming_back()
        try:
            await self.renew()
            await self._put_right()
            self._link.tried()
            renewals = 0
            while True:
                await asyncio.sleep(self._lease / RENEWALS)
                if not await self.renew():
                    log.warning("the lease had ended: this node was away for too long")
                    await self._put_right()
                await self._make_up()
                renewals += 1
                if renewals % REFRESH == 0:
                    await self._refresh()
        finally:
            self._up = False
            self._alone.away()
            self._echoes.fail()

    async def renew(self) -> bool:
        """Renew the lease and wait for the wake-up that comes of it; False where it had ended.

        Whatever was published to this node before has then been handed on. However long that
        takes: a node that has much to do is not cut off.

        :raises TimeoutError: scripts or wake-ups do not come through.
        :raises Unavailable:
        """
        link = self._link
        self._woken.clear()
        lease = int(self._lease * 1000)
        enlisted = link.call("enlist", lease, link.run, self._name)
        held = await _patiently(enlisted, lambda: link.answers)
        await _patiently(self._woken.wait(), lambda: link.wakes)
        return bool(held)

    async def _put_right(self) -> None:
        """Take back what is ours, end what ended meanwhile, let go of what is lost.

        :raises TimeoutError, Unavailable:
        """
        self._up = False
        self._alone.coming_back()
        async with asyncio.timeout(PUT_RIGHT):
            while not await self._put_all_right_as_one_who_lives():
                pass
        self._up = True
        self._alone.all_right()
        await self._make_up()

    async def _put_all_right_as_one_who_lives(self) -> bool:
        """Keep the lease meanwhile; False where it ended: others may have taken from us again."""
        held = True
        putting = asyncio.ensure_future(self._put_all_right())
        try:
            while not (await asyncio.wait({putting}, timeout=self._lease / RENEWALS))[0]:
                held = await self.renew() and held
            await putting
        finally:
            putting.cancel()
        return held

    async def _put_all_right(self) -> None:
        ours = list(self._attached.values())
        await asyncio.gather(*map(self._reconciler.replay, ours))
        await asyncio.gather(*map(self._reconciler.reconcile, ours))
        await self._make_up()
        outcomes = await asyncio.gather(*map(self._take_back, list(self._attached.values())))
        lost = [attached for attached in outcomes if attached is not None]
        loop = asyncio.get_running_loop()
        spread = len(lost) / RETURN_RATE
        for attached in lost:
            loop.call_later(
                random.uniform(0, spread),  # noqa: S311 - spreads load, no secret
                self._cut, attached, CloseCode.SESSION_OVER,
            )  # fmt: skip
        for text in await self._link.call("revocations", time.time()):
            self._revoked(text)

    async def _take_back(self, attached: Attached) -> Attached | None:
        """Attach a session again; gives it back where it cannot be had. :raises Unavailable:"""
        session = attached.record.session
        with self._coming.expecting(session):
            try:
                reply = await self._link.call(
                    "attach", session, attached.record.secret_hash.hex(), attached.last,
                    attached.epoch,
                )  # fmt: skip
            except BaseException:
                # It may be ours with an epoch that we do not know: its end would not be heard.
                self._doubtful.add(session)
                raise
        if self._attached.get(session) is not attached:
            # Its client was quicker; or an answer from before has had it let go of, and Redis now
            # believes it to be here: it is given back, or nobody would ever hear of its end.
            self._doubtful.add(session)
            return None
        if reply is None:
            return attached
        attached.epoch = reply[1]
        if code := self._coming.end_of(session, attached.owner):
            self._cut(attached, code)
        elif attached.end is not None:  # its socket was lost meanwhile
            await self._tell_end(attached)
        else:
            attached.catch_up(wire.entries(reply[3]), self._deliver)
        attached.unsure, attached.handed, attached.waiting = False, None, None
        return None

    async def _make_up(self) -> None:
        """Say what could not be said when it happened."""
        for attached in list(self._attached.values()):
            if attached.end is not None:
                await self._tell_end(attached)
            elif self._up:
                self._mind_gap(attached)
        for session in list(self._doubtful):
            if session not in self._attached and session not in self._resuming:
                await self._link.call("abandon", session)
            self._doubtful.discard(session)

    async def _refresh(self) -> None:
        names = list(self._attached)
        for start in range(0, len(names), REFRESHED_AT_ONCE):
            await self._link.call("refresh", *names[start : start + REFRESHED_AT_ONCE])

    # Inside --------------------------------------------------------------------------------

    async def _call(self, script: str, *arguments: Any) -> Any:
        if not self._up:
            raise Unavailable("Redis is away")
        return await self._link.call(script, *arguments)

    def _of(self, session: str) -> Attached:
        """An attached session. :raises SessionOver:"""
        attached = self._attached.get(session)
        if attached is None or attached.end is not None:
            raise SessionOver
        return attached

    async def _end(self, session: str, reason: str) -> None:
        attached = self._attached.get(session)
        if attached is None:
            return
        attached.end = reason
        with suppress(Unavailable):
            if self._up:
                await self._tell_end(attached)

    async def _tell_end(self, attached: Attached) -> None:
        session = attached.record.session
        if attached.end:
            await self._link.call("close", attached.owner, session, attached.end)
        else:
            await self._link.call("suspend", attached.owner, session)
        self._let_go(attached)

    def _let_go(self, attached: Attached) -> None:
        session = attached.record.session
        self._reconciler.close(attached)
        if self._attached.get(session) is attached:
            del self._attached[session]
            self._rosters.leave(attached.rooms)

    def _gone(self, attached: Attached) -> SessionOver:
        """What a script says of a session that is another's."""
        self._cut(attached, CloseCode.SESSION_OVER)
        return SessionOver()

    def _cut(self, attached: Attached, code: CloseCode) -> None:
        if code is not CloseCode.SLOW_READER:
            self._let_go(attached)  # a slow reader's session is suspended when its socket ends
        elif self._attached.get(attached.record.session) is not attached:
            return
        if self._listener is not None:
            self._listener.cut(attached.record.session, code)


async def _patiently(coming: Awaitable[Any], heard: Callable[[], int]) -> Any:
    """Wait as long as something comes. :param heard: how much has come. :raises TimeoutError:"""
    task, silent = asyncio.ensure_future(coming), 0
    try:
        while silent < LOOKS:
            before = heard()
            if (await asyncio.wait({task}, timeout=ANSWER / LOOKS))[0]:
                return task.result()
            silent = silent + 1 if heard() == before else 0
        raise TimeoutError
    finally:
        task.cancel()
