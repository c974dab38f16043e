"""What a node does by itself while Redis is away: hand messages from one of its sockets to another.

Only between two sessions that it holds and knows to share a room, and only where nothing that the
sender did before may be on its way to the recipient through Redis. The sender is answered when the
recipient has acknowledged, or when Redis is back and the mailbox has the message: so nothing that
was answered for is lost, whoever moves to another node meanwhile.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum

from signaling.broker.attached import Attached, Deliver
from signaling.broker.base import Later, Unavailable
from signaling.broker.ledger import MOST_REQUESTS, Entry, Ledger, Outgoing
from signaling.protocol import peerjs

GRACE = 1.0
"""Seconds that Redis is away before a node goes on alone: most absences are over by then."""
SETTLED = 30.0
"""Seconds after a resume in which a client asks again what may have been done at another node."""


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
        while self._state is not State.RIGHT:
            left = None
            if self._began is not None and self._state is State.AWAY:
                other = self._may(sender, to, request, self._began)
                if other is None:
                    raise Unavailable("Redis is away")
                left = self._began + GRACE - asyncio.get_running_loop().time()
                if left <= 0:
                    return other
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._turn.wait()
        return None

    def _may(self, sender: Attached, to: str, request: str, began: float) -> Attached | None:
        if sender.unsure or sender.doubts(request):
            return None
        if sender.resumed_at is not None and began - sender.resumed_at < SETTLED:
            return None
        if self._peers is None:
            self._peers = {each.record.peer: each for each in self._attached.values()}
        other = self._peers.get(to)
        if other is None or other is sender:
            return None
        if self._attached.get(other.record.session) is not other:
            return None
        if other.end is not None or other.has_gap or is_quiet(sender) != is_quiet(other):
            return None
        return other if sender.rooms & other.rooms else None

    def send(self, sender: Attached, other: Attached, what: Outgoing, deliver: Deliver) -> None:
        """Hand an event to a recipient that was found just now.

        :raises Later: it will be answered; without a request there is nothing to answer.
        :raises MailboxFull: nothing was handed on.
        """
        request = what.request
        known = sender.handed.get(request) if sender.handed and request else None
        if known is not None:
            raise Later(known.answer)
        answer = asyncio.get_running_loop().create_future()
        entry = Entry(sender.record.session, other.record.peer, what, answer)
        ledger = other.ledger = other.ledger or Ledger(other.last)
        ledger.append(entry, self._absence, *self._limits)
        other.hand(entry.seq, entry.frame, deliver)
        if request:
            handed = sender.handed = {} if sender.handed is None else sender.handed
            handed[request] = entry
            ledger.of(entry.sender, handed)
            if len(handed) > MOST_REQUESTS:
                del handed[next(iter(handed))]
            raise Later(answer)


def is_quiet(attached: Attached) -> bool:
    """Whether a session is in its rooms quietly: those of PeerJS are, and no others."""
    return attached.record.session.startswith(peerjs.NAME)
