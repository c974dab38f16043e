"""One session whose socket this node holds, and how far it has been told."""

from collections.abc import Callable, Iterable

from signaling.broker.base import SessionRecord
from signaling.broker.ledger import MOST_REQUESTS, Asked, Ledger

Deliver = Callable[[str, int, bytes], None]
"""As ``Listener.deliver``."""


class Attached:
    """One session at this node."""

    __slots__ = (
        "_doubts", "_held", "behind", "end", "epoch", "handed", "joining", "last", "ledger",
        "node", "reading", "record", "resumed_at", "rooms", "unsure", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        record: SessionRecord,
        node: str,
        epoch: int,
        last: int,
        resumed_at: float | None = None,
    ) -> None:
        """Describe it. :param resumed_at: monotonic time; None: it began at this node."""
        self.record = record
        self.node = node
        self.epoch = epoch
        self.resumed_at = resumed_at
        self.last = last
        """The ``seq`` of the last event that the hub has."""
        self.behind = 0
        """The highest ``seq`` that was heard of; more than ``last`` while a gap is read."""
        self.reading = False
        """Whether a gap is being read."""
        self.rooms: set[str] = set()
        self.joining = 0
        """Joins that are not answered yet: what they change must not be heard before."""
        self._held: list[tuple[int, bytes]] = []
        self.end: str | None = None
        """Set where the socket ended while Redis was away: "" lost, else the reason of a leave."""
        self.ledger: Ledger | None = None
        """What it was handed while Redis is away."""
        self.handed: dict[str, Asked] | None = None
        """What others were, or will be, handed of it then, by the ids of its requests."""
        self.waiting: list[Asked] | None = None
        """Those of them, to all of its rooms, that are not to be handed on yet."""
        self.unsure = False
        """Whether something that it did before may show only when Redis is back."""
        self._doubts: dict[str, None] | None = None

    @property
    def owner(self) -> str:
        """The fencing token: scripts do nothing for a session that another one owns."""
        return f"{self.node}:{self.epoch}"

    @property
    def has_gap(self) -> bool:
        """Whether something was heard of that does not follow on the last event."""
        return self.behind > self.last

    # Events --------------------------------------------------------------------------------

    def take(self, seq: int, frame: bytes, deliver: Deliver) -> None:
        """Hand on an event that this node was woken with, if it follows on the last one."""
        self.behind = max(self.behind, seq)
        if seq == self.last + 1:
            # Where this follows on a number of ours, the mailbox has taken over all that had one.
            self.ledger = None
            self.hand(seq, frame, deliver)

    def catch_up(self, events: Iterable[tuple[int, bytes]], deliver: Deliver) -> None:
        """Hand on what was read from the mailbox after the last event: all that there is."""
        for seq, frame in events:
            if seq > self.last:
                self.hand(seq, frame, deliver)

    def hand(self, seq: int, frame: bytes, deliver: Deliver) -> None:
        """Hand on the next event."""
        self.last = seq
        if self.joining:
            self._held.append((seq, frame))
        else:
            deliver(self.record.session, seq, frame)

    def joined(self, deliver: Deliver) -> None:
        """An answer to ``join`` has gone out: what came since may follow it."""
        self.joining -= 1
        if not self.joining:
            held, self._held = self._held, []
            for seq, frame in held:
                deliver(self.record.session, seq, frame)

    # Requests ------------------------------------------------------------------------------

    def doubt(self, request: str) -> None:
        """Whether a request was done is not known: only Redis can tell, when it is asked again."""
        if request:
            doubts = self._doubts = {} if self._doubts is None else self._doubts
            doubts[request] = None
            if len(doubts) > MOST_REQUESTS:
                del doubts[next(iter(doubts))]

    def believe(self, request: str) -> None:
        """Redis has answered a request."""
        if self._doubts:
            self._doubts.pop(request, None)

    def doubts(self, request: str) -> bool:
        """Whether a request may have been done."""
        return self._doubts is not None and request in self._doubts
