"""The sessions whose sockets this node holds: what they are told, and how they leave it."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from signaling.broker import wire
from signaling.broker.alone import is_quiet
from signaling.broker.attached import Attached
from signaling.broker.base import Listener, SessionOver, Unavailable
from signaling.broker.coming import Coming
from signaling.broker.link import Link
from signaling.broker.reconcile import Reconciler
from signaling.broker.rosters import Rosters
from signaling.protocol.errors import CloseCode


class Sessions:
    """Of one node."""

    def __init__(self, node: str, link: Link) -> None:
        """None yet. :param node: its id."""
        self.node = node
        self.attached: dict[str, Attached] = {}
        """By their ids."""
        self.coming = Coming()
        self.rosters = Rosters()
        self.reconciler = Reconciler(link, self.attached)
        self.listener: Listener | None = None
        """Has their sockets."""
        self.is_up = False
        """Whether Redis answers, and they are put right there."""
        self._link = link
        self._readers: set[asyncio.Task[None]] = set()

    async def call(self, script: str, *arguments: Any) -> Any:
        """Run a script for one of them. :raises Unavailable:"""
        if not self.is_up:
            raise Unavailable("Redis is away")
        return await self._link.call(script, *arguments)

    def of(self, session: str) -> Attached:
        """An attached session. :raises SessionOver:"""
        attached = self.attached.get(session)
        if attached is None or attached.end is not None:
            raise SessionOver
        return attached

    def enter(self, attached: Attached, room: str, others: Iterable[str]) -> None:
        """One is in a room from now on. :param others: the peers who are there already."""
        attached.rooms.add(room)
        # Nobody would hear that a quiet one has gone.
        self.rosters.enter(room, [] if is_quiet(attached) else [attached.record.peer, *others])

    def stop(self) -> None:
        """The node stops: nothing is read for them any more."""
        self.is_up = False
        for task in list(self._readers):
            task.cancel()

    # What they are told --------------------------------------------------------------------

    def arrived(self, session: str, seq: int, frame: bytes) -> None:
        """A wake-up has brought an event."""
        self.coming.woken(session, seq, frame)
        attached = self.attached.get(session)
        if attached is not None:
            attached.take(seq, frame, self.deliver)
            self.mind_gap(attached)

    def revoked(self, data: bytes) -> None:
        """Tell of a user whom an operator has revoked."""
        if self.listener is not None:
            self.listener.revoked(wire.parse_revocation(data))

    def deliver(self, session: str, seq: int, frame: bytes) -> None:
        """Hand an event to the socket."""
        self.rosters.hear(frame)
        if self.listener is not None:
            self.listener.deliver(session, seq, frame)

    def mind_gap(self, attached: Attached) -> None:
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
            while attached.has_gap and self.attached.get(session) is attached:
                before, owner = attached.last, attached.owner
                reply = await self.call("missed", owner, session, before)
                if self.attached.get(session) is attached:
                    attached.catch_up(wire.entries(reply), self.deliver)
                if (attached.last, attached.owner) == (before, owner):
                    self.cut(attached, CloseCode.SESSION_OVER)
        except Unavailable:
            pass  # the next event, or the next renewal, has it read
        finally:
            attached.reading = False

    # How they leave ------------------------------------------------------------------------

    async def end(self, session: str, reason: str) -> None:
        """Its socket ended; remembered while Redis is away. :param reason: "": it is lost."""
        attached = self.attached.get(session)
        if attached is None:
            return
        attached.end = reason
        with suppress(Unavailable):
            if self.is_up:
                await self.tell_end(attached)

    async def tell_end(self, attached: Attached) -> None:
        """Say that its socket ended, and let go of it. :raises Unavailable:"""
        session = attached.record.session
        if attached.end:
            await self._link.call("close", attached.owner, session, attached.end)
        else:
            await self._link.call("suspend", attached.owner, session)
        self.let_go(attached)

    def let_go(self, attached: Attached) -> None:
        """It is nothing of ours any more."""
        session = attached.record.session
        self.reconciler.close(attached)
        if self.attached.get(session) is attached:
            del self.attached[session]
            self.rosters.leave(attached.rooms)

    def gone(self, attached: Attached) -> SessionOver:
        """What a script says of a session that is another's."""
        self.cut(attached, CloseCode.SESSION_OVER)
        return SessionOver()

    def cut(self, attached: Attached, code: CloseCode) -> None:
        """Have its socket closed."""
        if code is not CloseCode.SLOW_READER:
            self.let_go(attached)  # a slow reader's session is suspended when its socket ends
        elif self.attached.get(attached.record.session) is not attached:
            return
        if self.listener is not None:
            self.listener.cut(attached.record.session, code)

    def over(self, session: str, owner: str, code: CloseCode) -> None:
        """A script says that a session of ours is over here, or of one that is on its way."""
        attached = self.attached.get(session)
        if attached is not None and attached.owner == owner:
            self.cut(attached, code)
        else:
            self.coming.heard(session, owner, code)
