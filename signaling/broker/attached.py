"""The sessions whose sockets this node holds, and how far each has been told."""

from collections.abc import Callable, Iterable

from signaling.broker.base import SessionRecord

Deliver = Callable[[str, int, str], None]
"""As ``Listener.deliver``."""


class Attached:
    """One session at this node."""

    __slots__ = (
        "_held", "behind", "end", "epoch", "joining", "last", "node", "reading", "record", "rooms",
    )  # fmt: skip

    def __init__(self, record: SessionRecord, node: str, epoch: int, last: int) -> None:
        self.record = record
        self.node = node
        self.epoch = epoch
        self.last = last
        """The ``seq`` of the last event that the hub has."""
        self.behind = 0
        """The highest ``seq`` that was heard of; more than ``last`` while a gap is read."""
        self.reading = False
        """Whether a gap is being read."""
        self.rooms: set[str] = set()
        self.joining = 0
        """Joins that are not answered yet: what they change must not be heard before."""
        self._held: list[tuple[int, str]] = []
        self.end: str | None = None
        """Set where the socket ended while Redis was away: "" lost, else the reason of a leave."""

    @property
    def owner(self) -> str:
        """The fencing token: scripts do nothing for a session that another one owns."""
        return f"{self.node}:{self.epoch}"

    @property
    def has_gap(self) -> bool:
        """Whether something was heard of that does not follow on the last event."""
        return self.behind > self.last

    def take(self, events: Iterable[tuple[int, str]], deliver: Deliver) -> None:
        """Hand on what follows on the last event."""
        for seq, text in events:
            self.behind = max(self.behind, seq)
            if seq == self.last + 1:
                self.last = seq
                if self.joining:
                    self._held.append((seq, text))
                else:
                    deliver(self.record.session, seq, text)

    def joined(self, deliver: Deliver) -> None:
        """An answer to ``join`` has gone out: what came since may follow it."""
        self.joining -= 1
        if not self.joining:
            held, self._held = self._held, []
            for seq, text in held:
                deliver(self.record.session, seq, text)
