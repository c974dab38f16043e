"""What one session was handed by its node alone, until its mailbox has it or its client says so.

While Redis is away nobody can number an event for all nodes. So a node's own numbers begin far
beyond any that a mailbox may come to meanwhile: a client that has seen one of them is not taken
for one that has seen another event, whichever node it goes to.
"""

from asyncio import Future
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from signaling.broker.base import MailboxFull

JUMP = 1_000_000
"""From the last number that Redis gave to the first one of a node; a mailbox holds far fewer."""
MOST_REQUESTS = 256
"""Of one sender: as many as Redis remembers of a session (``common.lua``)."""


class Outgoing(NamedTuple):
    """An event that was to go by Redis."""

    body: bytes
    """As ``wire.body_of`` gives it."""
    request: str
    """The id that its sender gave it; may be empty."""
    tag: str
    """What a mailbox knows it by, where it got there before, or comes to by another node."""
    doubtful: bool
    """Whether Redis was asked and has not answered: it may be done yet."""


class Entry:
    """An event that was handed on, and is in no mailbox as far as this node knows."""

    __slots__ = ("answer", "body", "doubtful", "request", "sender", "seq", "tag", "to")

    def __init__(self, sender: str, to: str, what: Outgoing, answer: "Future[bool]") -> None:
        """Describe it.

        :param sender: a session. :param to: a peer.
        :param answer: is set when it is certain to be the recipient's.
        """
        self.sender = sender
        self.to = to
        self.body, self.request, self.tag, self.doubtful = what
        self.answer = answer
        self.seq = 0

    @property
    def frame(self) -> bytes:
        """The text frame."""
        return b"%b%d}" % (self.body, self.seq)

    def settle(self) -> None:
        """It has arrived, or is kept where it cannot be lost."""
        if not self.answer.done():
            self.answer.set_result(True)

    def give_up(self, error: Exception) -> None:
        """Nobody can answer for it any more."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whether somebody waits for it or not


class Ledger:
    """Of one recipient, in the order of its events."""

    __slots__ = (
        "_absence",
        "_bytes",
        "_doubtful",
        "_recent",
        "_tags",
        "acknowledged",
        "base",
        "entries",
        "top",
    )

    def __init__(self, base: int) -> None:
        """Begin. :param base: the last number that Redis gave it."""
        self.base = self.top = base
        self.acknowledged = 0
        """What the client has said to have meanwhile; the mailbox knows what it said before."""
        self.entries: list[Entry] = []
        """What the client has not acknowledged."""
        self._bytes = 0
        self._absence = -1
        self._doubtful: list[str] = []
        """Tags of what Redis may do, or have done: few, and none of them may be forgotten."""
        self._tags: defaultdict[str, deque[tuple[str, str]]] = defaultdict(
            lambda: deque(maxlen=MOST_REQUESTS)
        )
        """By sender: (tag, request) of what it was handed."""
        self._recent: dict[str, Mapping[str, Entry]] = {}
        """By sender: its last requests, whomever they were for. It asks again for no others."""

    def of(self, sender: str, recent: Mapping[str, Entry]) -> None:
        """Know the last requests of a sender."""
        self._recent[sender] = recent

    def append(self, entry: Entry, absence: int, most_messages: int, most_bytes: int) -> None:
        """Number an event and keep it.

        :param absence: which one of Redis it is. After each try to come back the numbers jump:
            the mailbox may have taken over, and gone on from, those of the last absence.
        :raises MailboxFull: the client has not acknowledged for so long that no more is kept.
        """
        size = self._bytes + len(entry.body)
        if len(self.entries) >= most_messages or size > most_bytes:
            raise MailboxFull
        self.top += 1 if absence == self._absence else JUMP
        self._absence = absence
        self._bytes = size
        entry.seq = self.top
        self.entries.append(entry)
        if entry.doubtful:
            self._doubtful.append(entry.tag)
        else:
            self._tags[entry.sender].append((entry.tag, entry.request))

    def acknowledge(self, seq: int) -> None:
        """The client has everything up to ``seq``."""
        self.acknowledged = max(self.acknowledged, min(seq, self.top))
        while self.entries and self.entries[0].seq <= seq:
            entry = self.entries.pop(0)
            self._bytes -= len(entry.body)
            entry.settle()

    def arguments(self) -> Iterator[object]:
        """What ``reconcile.lua`` is told: entries, then the tags of all that was handed on.

        First, and in their order, those that their senders may ask for again: Redis remembers
        as many of a sender as it may ask for, and no more.
        """
        yield len(self.entries)
        unanswered = set()
        for entry in self.entries:
            yield from (entry.seq, entry.body, entry.tag)
            unanswered.add(entry.tag)
        again: list[str] = list(self._doubtful)
        never: list[str] = []
        for sender, tags in self._tags.items():
            recent = self._recent.get(sender, {})
            for tag, request in tags:
                may = request and (request in recent or tag in unanswered)
                (again if may else never).append(tag)
        yield len(again)
        yield from again
        yield from never
