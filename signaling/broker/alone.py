"""What a node does by itself while Redis is away: hand messages from its sockets to its sockets.

Only between sessions that it holds and knows to share a room, and only where nothing that the
sender did before may be on its way to the recipient through Redis. The sender is answered when the
recipients have acknowledged, or when Redis is back and the mailboxes have the message: so nothing
that was answered for is lost, whoever moves to another node meanwhile.

A message to all goes to those who are here; the others, whom the node knows of, get it when Redis
is back. Before that nobody else may do it: at another node it would reach those of the recipients
again who have begun new sessions there. So its sender is first handed a number of ours (``jump``):
once it has acknowledged one, it resumes nowhere else, and cannot ask there again.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import TypeVar

from signaling.broker import wire
from signaling.broker.attached import Attached, Deliver
from signaling.broker.base import Later, MailboxFull, Unavailable
from signaling.broker.ledger import MOST_REQUESTS, Asked, Ledger, Outgoing
from signaling.protocol import peerjs
from signaling.protocol.messages import Jump

GRACE = 1.0
"""Seconds that Redis is away before a node goes on alone: most absences are over by then."""
SETTLED = 30.0
"""Seconds after a resume in which a client asks again what may have been done at another node."""
JUMP_TAG = "jump"
PEER_BYTES = 64
"""What it takes to remember one peer who does not have a message yet, about."""
Found = TypeVar("Found")


class State(Enum):
    """Of Redis, as a node sees it."""

    RIGHT = "right"
    AWAY = "away"
    COMING_BACK = "coming back"
    """It can be reached, and our sessions are about to be put right there."""


class Alone:
    """Of one node."""

    def __init__(
        self, attached: Mapping[str, Attached], most_messages: int, most_bytes: int
    ) -> None:
        """Prepare. :param attached: the sessions of this node, by their ids."""
        self._attached = attached
        self._limits = most_messages, most_bytes
        self._absence = 0
        self._peers: dict[str, Attached] | None = None
        self._late: set[str] = set()
        """Peers who get something when Redis is back, which nothing may overtake."""
        self._began: float | None = None
        """Monotonic time at which Redis went away; set until all is right again."""
        self._state = State.RIGHT
        self._turn = asyncio.Event()
        """Set, and replaced, when any of this changes."""

    # When ----------------------------------------------------------------------------------

    def coming_back(self) -> None:
        """Redis can be reached: nothing is handed on any more until all is put right there."""
        self._state = State.COMING_BACK

    def all_right(self) -> None:
        """Everything goes by Redis again."""
        self._began = None
        self._late.clear()
        self._change(State.RIGHT)

    def away(self) -> None:
        """Redis cannot be reached."""
        if self._began is None:
            self._began = asyncio.get_running_loop().time()
        self._absence += 1
        self._peers = None
        self._change(State.AWAY)

    def _change(self, state: State) -> None:
        self._state = state
        self._turn.set()
        self._turn = asyncio.Event()

    # What ----------------------------------------------------------------------------------

    async def recipient(self, sender: Attached, to: str, request: str) -> Attached | None:
        """Who takes a message without Redis, once that has been away for a while; None: it is back.

        :raises Unavailable: the message has to wait for Redis.
        """

        def find(began: float) -> Attached | None:
            # A message of its own to all that waits must not be overtaken.
            may = not sender.waiting and self._may_send(sender, request, began)
            return self._who_takes(sender, to) if may else None

        return await self._once_away(find)

    async def may_broadcast(self, sender: Attached, request: str) -> bool:
        """Whether a message to all goes without Redis, once that has been away for a while; False:
        it is back.

        :raises Unavailable: the message has to wait for Redis.
        """

        def find(began: float) -> Attached | None:
            may = not is_quiet(sender) and self._may_send(sender, request, began)
            return sender if may else None

        return await self._once_away(find) is not None

    async def _once_away(self, find: Callable[[float], Found | None]) -> Found | None:
        """What is found when Redis has been away for a while; None: it is back.

        :param find: told since when; what it gives None for has to wait. :raises Unavailable:
        """
        while self._state is not State.RIGHT:
            left = None
            if self._began is not None and self._state is State.AWAY:
                found = find(self._began)
                if found is None:
                    raise Unavailable("Redis is away")
                left = self._began + GRACE - asyncio.get_running_loop().time()
                if left <= 0:
                    return found
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._turn.wait()
        return None

    def _may_send(self, sender: Attached, request: str, began: float) -> bool:
        if sender.unsure or sender.doubts(request):
            return False
        return sender.resumed_at is None or began - sender.resumed_at >= SETTLED

    def _who_takes(self, sender: Attached, to: str) -> Attached | None:
        if self._peers is None:
            self._peers = {each.record.peer: each for each in self._attached.values()}
        other = self._peers.get(to)
        if other is None or other is sender or to in self._late:
            return None
        if self._attached.get(other.record.session) is not other:
            return None
        if other.end is not None or other.has_gap or is_quiet(sender) != is_quiet(other):
            return None
        return other if sender.rooms & other.rooms else None

    # To one --------------------------------------------------------------------------------

    def send(self, sender: Attached, other: Attached, what: Outgoing, deliver: Deliver) -> None:
        """Hand an event to a recipient that was found just now.

        :raises Later: it will be answered; without a request there is nothing to answer.
        :raises MailboxFull: nothing was handed on.
        """
        self._raise_known(sender, what.request)
        asked = Asked(sender.record.session, what, [other.record.peer])
        handed = self._room_for(sender) if what.request else None
        self._hand(sender, other, asked, deliver)
        if handed is not None:
            handed[asked.request] = asked
            raise Later(asked.answer)

    # To all --------------------------------------------------------------------------------

    def broadcast(
        self, sender: Attached, peers: Iterable[str], what: Outgoing, deliver: Deliver
    ) -> None:
        """Hand an event to all of these peers who are here, as soon as the sender is ours alone.

        :raises Later: it will be answered; where there is nobody, it is done.
        :raises MailboxFull: too much of this sender waits for Redis; nothing was handed on.
        """
        self._raise_known(sender, what.request)
        asked = Asked(sender.record.session, what, sorted(peers), to_all=True)
        if not asked.peers:
            return
        handed = self._room_for(sender)
        waiting = sum(_size(each) for each in handed.values() if each.to_all)
        if waiting + _size(asked) > self._limits[1]:
            raise MailboxFull
        handed[asked.request] = asked
        sender.waiting = [*(sender.waiting or ()), asked]
        self.go_on(sender, deliver)
        raise Later(asked.answer)

    def go_on(self, sender: Attached, deliver: Deliver) -> None:
        """Hand on what a sender has said to all, if it has acknowledged a number of ours."""
        if not sender.waiting or self._state is not State.AWAY:
            return
        if any(asked.repeated for asked in sender.waiting):
            return  # who is here may have it by Redis, or get it so, before what comes next
        ledger = sender.ledger
        if ledger is None or not ledger.has_numbers_of(self._absence):
            what = Outgoing(wire.body_of(Jump()), "", JUMP_TAG, doubtful=False)
            with suppress(MailboxFull):  # it has enough of ours to acknowledge
                asked = Asked(sender.record.session, what, ())
                self._hand(sender, sender, asked, deliver)
        elif ledger.is_seen(self._absence):
            waiting, sender.waiting = sender.waiting, None
            for asked in waiting:
                if not asked.answer.done():
                    self._hand_to_all(sender, asked, deliver)

    def _hand_to_all(self, sender: Attached, asked: Asked, deliver: Deliver) -> None:
        for peer in list(asked.peers):
            other = self._who_takes(sender, peer)
            with suppress(MailboxFull):
                if other is not None:
                    self._hand(sender, other, asked, deliver)
                    continue
            self._late.add(peer)

    # Inside --------------------------------------------------------------------------------

    def _hand(self, sender: Attached, other: Attached, asked: Asked, deliver: Deliver) -> None:
        """:raises MailboxFull:"""
        ledger = other.ledger = other.ledger or Ledger(other.last)
        entry = ledger.append(asked, other.record.peer, self._absence, *self._limits)
        if sender.handed is not None:
            ledger.of(asked.sender, sender.handed)
        other.hand(entry.seq, entry.frame, deliver)

    def _raise_known(self, sender: Attached, request: str) -> None:
        known = sender.handed.get(request) if sender.handed and request else None
        if known is not None:
            raise Later(known.answer)

    def _room_for(self, sender: Attached) -> dict[str, Asked]:
        """What is remembered of a sender, with a place for one more.

        :raises MailboxFull: all of it is to be answered yet.
        """
        handed = sender.handed = {} if sender.handed is None else sender.handed
        if len(handed) >= MOST_REQUESTS:
            answered = (name for name, asked in handed.items() if asked.answer.done())
            oldest = next(answered, None)
            if oldest is None:
                raise MailboxFull
            del handed[oldest]
        return handed


def _size(asked: Asked) -> int:
    return len(asked.body) + PEER_BYTES * len(asked.peers)


def is_quiet(attached: Attached) -> bool:
    """Whether a session is in its rooms quietly: those of PeerJS are, and no others."""
    return attached.record.session.startswith(peerjs.NAME)
