"""What one session was handed by its node alone, until its mailbox has it or its client says so.

While Redis is away nobody can number an event for all nodes. So a node's own numbers begin far
beyond any that a mailbox may come to meanwhile: a client that has seen one of them is not taken
for one that has seen another event, whichever node it goes to.
"""

from asyncio import Future, get_running_loop
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
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


class Asked:
    """What a sender was not answered yet: an event, and the peers who may not have it."""

    __slots__ = (
        "answer", "body", "doubtful", "peers", "repeated", "request", "sender", "tag", "to_all",
    )  # fmt: skip

    def __init__(
        self, sender: str, what: Outgoing, peers: Iterable[str], *, to_all: bool = False
    ) -> None:
        """Describe it. :param sender: a session. :param peers: whom it is for."""
        self.sender = sender
        self.body, self.request, self.tag, self.doubtful = what
        self.to_all = to_all
        self.repeated = False
        """Whether Redis was asked for it once more: nobody is handed it by this node any more."""
        self.peers: dict[str, Ledger | None] = dict.fromkeys(peers)
        """Whoever has not acknowledged it; with it the ledger of who was handed it."""
        self.answer: Future[bool] = get_running_loop().create_future()
        """Set when it is certain to be everyone's."""

    def arrived(self, peer: str) -> None:
        """A peer has acknowledged it."""
        self.peers.pop(peer, None)
        if not self.peers:
            self.settle()
            self.body = b""  # no ledger has it any more
            self.peers.clear()  # a dict keeps its room else, and this is remembered for a while

    def settle(self) -> None:
        """It has arrived, or is kept where it cannot be lost."""
        if not self.answer.done():
            self.answer.set_result(True)

    def give_up(self, error: Exception) -> None:
        """Nobody can answer for it any more."""
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whether somebody waits for it or not

    def doubt(self) -> None:
        """Redis is asked for it: until it answers, it may be done or not."""
        self.repeated = True
        for ledger in self.peers.values():
            if ledger is not None:
                ledger.doubt(self.tag)


class Entry(NamedTuple):
    """An event that was handed to one peer, and is in no mailbox as far as this node knows."""

    asked: Asked
    to: str
    seq: int

    @property
    def frame(self) -> bytes:
        """The text frame."""
        return b"%b%d}" % (self.asked.body, self.seq)


class Ledger:
    """Of one recipient, in the order of its events."""

    __slots__ = (
        "_absence",
        "_begun",
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
        self._begun = 0
        """The first number of that absence."""
        self._doubtful: dict[str, None] = {}
        """Tags of what Redis may do, or have done: few, and none of them may be forgotten."""
        self._tags: defaultdict[str, deque[tuple[str, str]]] = defaultdict(
            lambda: deque(maxlen=MOST_REQUESTS)
        )
        """By sender: (tag, request) of what it was handed that was for it alone."""
        self._recent: dict[str, Mapping[str, Asked]] = {}
        """By sender: its last requests, whomever they were for. It asks again for no others."""

    def of(self, sender: str, recent: Mapping[str, Asked]) -> None:
        """Know the last requests of a sender."""
        self._recent[sender] = recent

    def append(
        self, asked: Asked, to: str, absence: int, most_messages: int, most_bytes: int
    ) -> Entry:
        """Number an event and keep it. :param to: the peer whose ledger this is.

        :param absence: which one of Redis it is. After each try to come back the numbers jump:
            the mailbox may have taken over, and gone on from, those of the last absence.
        :raises MailboxFull: the client has not acknowledged for so long that no more is kept.
        """
        size = self._bytes + len(asked.body)
        if len(self.entries) >= most_messages or size > most_bytes:
            raise MailboxFull
        if absence != self._absence:
            self._absence, self._begun = absence, self.top + JUMP
            self.top = self._begun
        else:
            self.top += 1
        self._bytes = size
        entry = Entry(asked, to, self.top)
        self.entries.append(entry)
        asked.peers[to] = self
        if asked.doubtful:
            self.doubt(asked.tag)
        elif not asked.to_all:  # else its sender asks nowhere again before it is remembered
            self._tags[asked.sender].append((asked.tag, asked.request))
        return entry

    def doubt(self, tag: str) -> None:
        """Redis may have, or get, an event that is known here: it must not be forgotten."""
        self._doubtful[tag] = None

    def doubt_all(self) -> None:
        """The mailbox may take over what is not acknowledged, and its answer be lost."""
        for entry in self.entries:
            if entry.asked.to_all:
                self.doubt(entry.asked.tag)

    def has_numbers_of(self, absence: int) -> bool:
        """Whether anything was handed on in this absence."""
        return self._absence == absence

    def is_seen(self, absence: int) -> bool:
        """Whether the client has acknowledged a number of this absence: it resumes nowhere else
        until the mailbox has taken over.
        """
        return self._absence == absence and self.acknowledged >= self._begun

    def acknowledge(self, seq: int) -> None:
        """The client has everything up to ``seq``."""
        self.acknowledged = max(self.acknowledged, min(seq, self.top))
        while self.entries and self.entries[0].seq <= seq:
            asked, to, _ = self.entries.pop(0)
            self._bytes -= len(asked.body)
            asked.arrived(to)

    def arguments(self) -> Iterator[object]:
        """What ``reconcile.lua`` is told: entries, then the tags of all that was handed on.

        First, and in their order, those that their senders may ask for again: Redis remembers
        as many of a sender as it may ask for, and no more.
        """
        unanswered = set()
        for asked, _, seq in self.entries:
            yield from (seq, asked.body, asked.tag)
            unanswered.add(asked.tag)
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
