"""The embedded broker: everything in this process, for a laptop or a single machine."""

import copy
import hmac
import math
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw

from config.webhooks.waiting import Queued, WaitingEvents
from signaling import room as rooms
from signaling import session as sessions
from signaling.backlog import Backlog
from signaling.broker.base import (
    Directed,
    Listener,
    MailboxFull,
    Node,
    NotThere,
    Resumption,
    Revocation,
    RoomFull,
    SessionOver,
    SessionRecord,
    Taken,
)
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import Event, PeerEntry
from signaling.room import Member, Notice, Room
from signaling.session import Mailbox, RecentRequests

ATTACHED = math.inf
PAST = {
    "join": "joined", "leave": "left", "suspended": "suspended", "resumed": "resumed",
    "update": "updated",
}  # fmt: skip
"""What a webhook calls the events of presence."""


class _Session:
    """A session, its mailbox, and since when it has to be back."""

    __slots__ = ("expires", "mailbox", "recent", "record", "rooms")

    def __init__(self, record: SessionRecord, mailbox: Mailbox) -> None:
        self.record = record
        self.mailbox = mailbox
        self.rooms: dict[str, bool] = {}
        """Whether it is in them quietly."""
        self.recent = RecentRequests()
        self.expires = ATTACHED

    @property
    def attached(self) -> bool:
        return self.expires == ATTACHED

    def may_write_to(self, other: "_Session") -> bool:
        """Whether they share a room, and see one another there: both quiet, or neither."""
        if other is self:
            return False
        theirs = other.rooms
        for room, quiet in self.rooms.items():  # noqa: SIM110 - any() makes a generator each time
            if theirs.get(room) is quiet:
                return True
        return False


class MemoryBroker:
    """A broker without a network. Methods never wait: what they do is done when they return."""

    waits = False

    def __init__(
        self, most_messages: int, most_bytes: int, waiting: WaitingEvents | None = None
    ) -> None:
        """Prepare. :param waiting: hears what becomes of rooms and peers, for the webhooks."""
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._backlog = Backlog()
        self._sessions: dict[str, _Session] = {}
        self._rooms: dict[str, Room] = {}
        self._peers: dict[str, _Session] = {}
        self._listener: Listener | None = None
        self._waiting = waiting
        self._revoked: dict[str, float] = {}
        """user → until when it may begin nothing (Unix time)."""

    async def start(self, listener: Listener) -> None:
        """Begin to work."""
        self._listener = listener

    async def stop(self) -> None:
        """End; nothing outlives the process."""

    def is_up(self) -> bool:
        """Always: there is nothing that it needs."""
        return True

    # Sessions ------------------------------------------------------------------------------

    async def open(self, record: SessionRecord) -> None:
        """Begin a session."""
        if record.session in self._sessions:
            raise Taken
        mailbox = Mailbox(self._most_messages, self._most_bytes, self._backlog)
        opened = _Session(record, mailbox)
        self._sessions[record.session] = self._peers[record.peer] = opened

    async def resume(self, session: str, secret_hash: bytes, seq: int | None) -> Resumption | None:
        """Attach a session again; None where it cannot go on without a loss."""
        found = self._sessions.get(session)
        if found is None or not hmac.compare_digest(found.record.secret_hash, secret_hash):
            return None
        if seq is None:
            seq = found.mailbox.acknowledged
        missed = found.mailbox.after(seq)
        if missed is None:
            await self.close(session, "lost")
            if found.attached and self._listener is not None:
                self._listener.cut(session, CloseCode.SESSION_OVER)
            return None
        found.mailbox.acknowledge(seq)
        away, found.expires = not found.attached, ATTACHED
        if away:
            self._change(found, Room.resume, "resumed")
        return Resumption(found.record, missed, seq)

    async def suspend(self, session: str, now: float) -> None:
        """Let the resume window begin."""
        found = self._sessions.get(session)
        if found is None or not found.attached:
            return
        found.expires = now + found.record.grant.resume_window
        self._change(found, Room.suspend, "suspended")

    async def close(self, session: str, reason: str) -> None:
        """End a session."""
        found = self._sessions.pop(session, None)
        if found is None:
            return
        del self._peers[found.record.peer]
        found.mailbox.clear()
        for name in sorted(found.rooms):
            self._leave(found, name, reason)

    async def reap(self, now: float) -> int:
        """End the sessions whose resume window is over."""
        over = [name for name, found in self._sessions.items() if found.expires <= now]
        for session in over:
            await self.close(session, "timeout")
        return len(over)

    # Rooms ---------------------------------------------------------------------------------

    async def join(
        self, session: str, room: str, meta: Raw, capacity: int, *, quiet: bool = False
    ) -> list[PeerEntry]:
        """Enter a room."""
        found = self._live(session)
        entered = self._rooms.get(room) or Room(room)
        member = Member(session, found.record.peer, found.record.name, meta, quiet=quiet)
        before = entered.meta_of(session) if room in found.rooms else meta
        try:
            notices = entered.join(member, capacity)
        except rooms.RoomFull:
            raise RoomFull from None
        if room not in self._rooms:
            self._rooms[room] = entered
            self._note("room.opened", room=room)
        if room not in found.rooms:
            found.rooms[room] = quiet
            self._note_peer(found, room, "join")
        elif before != meta:
            self._note_peer(found, room, "update")
        self._tell(notices)
        return entered.roster(session)

    async def leave(self, session: str, room: str, reason: str, request: str = "") -> None:
        """Leave a room."""
        found = self._sessions.get(session)
        if found is None:
            raise NotThere
        if request in found.recent:
            return
        if room not in found.rooms:
            raise NotThere
        del found.rooms[room]
        self._leave(found, room, reason)
        found.recent.add(request)

    async def rooms_of(self, session: str) -> list[str]:
        """The rooms that a session is in."""
        found = self._sessions.get(session)
        return sorted(found.rooms) if found else []

    async def quiet_names(self, room: str) -> list[str]:
        """The names of those who are quietly in a room."""
        return self._rooms[room].quiet_names()[:1000] if room in self._rooms else []

    async def revoke(self, revocation: Revocation) -> None:
        """Tell this node; end the user's sessions that are away."""
        if revocation.spent and not revocation.until:  # credentials are spent; what held goes on
            held = self._revoked.get(revocation.user, 0.0)
            revocation = msgspec.structs.replace(revocation, until=held)
        self._revoked[revocation.user] = revocation.until
        if not revocation.until:
            del self._revoked[revocation.user]
        if revocation.until:
            for session, found in list(self._sessions.items()):
                if found.record.user == revocation.user and not found.attached:
                    await self.close(session, "revoked")
        if self._listener is not None:
            self._listener.revoked(revocation)

    # For webhooks --------------------------------------------------------------------------

    async def take_events(self, most: int, lease: float) -> list[Queued]:
        """Events that are due."""
        return self._waiting.take(most, lease) if self._waiting is not None else []

    async def end_events(self, ids: Sequence[str]) -> None:
        """They are delivered, or given up."""
        if self._waiting is not None:
            self._waiting.end(ids)

    async def retry_event(self, event_id: str, delay: float) -> None:
        """Try again after a while."""
        if self._waiting is not None:
            self._waiting.retry(event_id, delay)

    async def nodes(self) -> list[Node]:
        """None: this node stands alone."""
        return []

    def counts(self) -> tuple[int, int]:
        """(rooms, peers in rooms)."""
        return len(self._rooms), sum(len(room) for room in self._rooms.values())

    # Messages ------------------------------------------------------------------------------

    async def send(
        self, session: str, to: str, event: Directed, request: str = "", *, patient: bool = True
    ) -> bool:
        """Put an event into one peer's mailbox."""
        sender = self._live(session)
        if request in sender.recent:
            return False
        recipient = self._peers.get(to)
        if recipient is None or not sender.may_write_to(recipient):
            raise NotThere
        if not patient and not recipient.attached:
            raise NotThere
        try:
            there = self._post(recipient, event)
        except sessions.MailboxFull:
            raise MailboxFull from None
        sender.recent.add(request)
        return there

    async def broadcast(self, session: str, event: Directed, request: str = "") -> bool:
        """Put an event into the mailbox of everyone who shares a room."""
        sender = self._live(session)
        if request in sender.recent:
            return False
        names = sorted(sender.rooms)
        recipients = {other: None for name in names for other in self._rooms[name].others(session)}
        all_there = True
        for other in recipients:
            all_there &= self._post_or_break(self._sessions[other], copy.copy(event))
        sender.recent.add(request)
        return all_there

    async def acknowledge(self, session: str, seq: int) -> None:
        """Everything up to ``seq`` has arrived."""
        found = self._sessions.get(session)
        if found is not None:
            found.mailbox.acknowledge(seq)

    # Inside --------------------------------------------------------------------------------

    def _live(self, session: str) -> _Session:
        found = self._sessions.get(session)
        if found is None:
            raise SessionOver
        return found

    def _change(
        self, found: _Session, change: Callable[[Room, str], list[Notice]], event: str
    ) -> None:
        for name in sorted(found.rooms):
            self._note_peer(found, name, event)
            self._tell(change(self._rooms[name], found.record.session))

    def _leave(self, found: _Session, name: str, reason: str) -> None:
        room = self._rooms[name]
        self._note_peer(found, name, "leave", reason)
        self._tell(room.leave(found.record.session, reason))
        if not len(room):
            del self._rooms[name]
            self._note("room.closed", room=name)

    def _note(self, kind: str, **data: object) -> None:
        if self._waiting is not None:
            self._waiting.note(kind, **data)

    def _note_peer(self, found: _Session, room: str, event: str, reason: str = "") -> None:
        record = found.record
        self._note(
            f"peer.{PAST[event]}", room=room, id=record.peer, name=record.name,
            meta=self._rooms[room].meta_of(record.session), user=record.user, reason=reason,
        )  # fmt: skip

    def _tell(self, notices: list[Notice]) -> None:
        for notice in notices:
            self._post_or_break(self._sessions[notice.session], notice.event)

    def _post(self, recipient: _Session, event: Event | Directed) -> bool:
        seq, frame = recipient.mailbox.append(event)
        there = recipient.attached
        if there and self._listener is not None:
            self._listener.deliver(recipient.record.session, seq, frame)
        return there

    def _post_or_break(self, recipient: _Session, event: Event | Directed) -> bool:
        """Post, or remember that a resume would hide a loss."""
        try:
            return self._post(recipient, event)
        except sessions.MailboxFull:
            recipient.mailbox.broken = True
            if recipient.attached and self._listener is not None:
                self._listener.cut(recipient.record.session, CloseCode.SLOW_READER)
            return False
