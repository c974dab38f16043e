"""The sessions whose sockets this node holds, and how far each has been told."""

from collections.abc import Callable

from signaling.broker.base import SessionRecord


class Attached:
    """One session at this node."""

    __slots__ = ("behind", "end", "epoch", "last", "node", "record", "rooms")

    def __init__(self, record: SessionRecord, node: str, epoch: int, last: int) -> None:
        self.record = record
        self.node = node
        self.epoch = epoch
        self.last = last
        """The ``seq`` of the last event that the hub has."""
        self.behind = 0
        """The highest ``seq`` that was heard of; more than ``last`` while a gap is read."""
        self.rooms: set[str] = set()
        self.end: str | None = None
        """Set where the socket ended while Redis was away: "" lost, else the reason of a leave."""

    @property
    def owner(self) -> str:
        """The fencing token: scripts do nothing for a session that another one owns."""
        return f"{self.node}:{self.epoch}"

    def take(self, events: list[tuple[int, str]], deliver: Callable[[str, int, str], None]) -> bool:
        """Hand on what follows on the last event; False where there is a gap before the rest."""
        for seq, text in events:
            self.behind = max(self.behind, seq)
            if seq == self.last + 1:
                self.last = seq
                deliver(self.record.session, seq, text)
        return self.behind <= self.last
