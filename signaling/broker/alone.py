"""What a node does by itself while Redis is away: hand messages from one of its sockets to another.

Only between two sessions that it holds and knows to share a room, and only where nothing that the
sender did before may be on its way to the recipient through Redis. The sender is answered when the
recipient has acknowledged, or when Redis is back and the mailbox has the message: so nothing that
was answered for is lost, whoever moves to another node meanwhile.
"""

import asyncio
from collections.abc import Mapping

from signaling.broker.attached import Attached, Deliver
from signaling.broker.base import Later
from signaling.broker.ledger import MOST_REQUESTS, Entry, Ledger
from signaling.protocol import peerjs

GRACE = 1.0
"""Seconds that Redis is away before a node goes on alone: most absences are over by then."""
SETTLED = 30.0
"""Seconds after a resume in which a client asks again what may have been done at another node."""


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
        self.since: float | None = None
        """Monotonic time at which Redis went away; None while it is there, or coming back."""

    def begin(self, now: float, since: float | None) -> None:
        """Redis is away. :param since: when it was there last; None: until now."""
        self.since = now if since is None else since
        self._absence += 1
        self._peers = None

    def may(self, sender: Attached, to: str, request: str) -> Attached | None:
        """The recipient, where a message may go to it without Redis."""
        if self.since is None or sender.unsure or sender.doubts(request):
            return None
        if sender.resumed_at is not None and self.since - sender.resumed_at < SETTLED:
            return None
        if self._peers is None:
            self._peers = {each.record.peer: each for each in self._attached.values()}
        other = self._peers.get(to)
        if (
            other is None
            or other is sender
            or self._attached.get(other.record.session) is not other
        ):
            return None
        if other.end is not None or other.has_gap or is_quiet(sender) != is_quiet(other):
            return None
        return other if sender.rooms & other.rooms else None

    def send(
        self, sender: Attached, other: Attached, body: str, names: tuple[str, str], deliver: Deliver
    ) -> None:
        """Hand an event to a recipient that ``may`` gave.

        :param names: the request, which may be empty, and the tag that its mailbox would have.
        :raises Later: it will be answered; without a request there is nothing to answer.
        :raises MailboxFull: nothing was handed on.
        """
        request, tag = names
        known = sender.handed.get(request) if sender.handed and request else None
        if known is not None:
            raise Later(known.answer)
        answer = asyncio.get_running_loop().create_future()
        entry = Entry(sender.record.session, other.record.peer, body, request, tag, answer)
        ledger = other.ledger = other.ledger or Ledger(other.last)
        ledger.append(entry, self._absence, *self._limits)
        other.hand(entry.seq, entry.text, deliver)
        if request:
            handed = sender.handed = {} if sender.handed is None else sender.handed
            handed[request] = entry
            if len(handed) > MOST_REQUESTS:
                del handed[next(iter(handed))]
            raise Later(answer)


def is_quiet(attached: Attached) -> bool:
    """Whether a session is in its rooms quietly: those of PeerJS are, and no others."""
    return attached.record.session.startswith(peerjs.NAME)


def give_up(entry: Entry, error: Exception) -> None:
    """Nobody can answer for an entry any more."""
    if not entry.answer.done():
        entry.answer.set_exception(error)
        entry.answer.exception()  # whether somebody waits for it or not
