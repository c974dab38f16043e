"""A session's mailbox: numbered, acknowledged, replayed; and what makes a retry harmless.

The numbering is the recipient's own: 1, 2, 3, … whatever the senders. A client that comes back
says the last number it saw and gets everything after it, or learns that this cannot be had.
"""

from collections.abc import Set

from signaling.backlog import Backlog
from signaling.protocol.messages import Event, encode
from signaling.protocol.peerjs import Forwarded

LEAST_REMEMBERED_IDS = 512
"""Requests that are remembered for a retry after a reconnect; at most twice as many."""


class MailboxFull(Exception):
    """The recipient has not acknowledged for so long that nothing more is kept."""


class Mailbox:
    """What a session was sent and has not acknowledged."""

    def __init__(self, most_messages: int, most_bytes: int, backlog: Backlog | None = None) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._backlog = backlog or Backlog()
        self._bytes = 0
        self._unacknowledged: list[tuple[int, bytes]] = []  # a deque takes 600 bytes when empty
        self.last = 0
        """The number of the newest entry."""
        self.acknowledged = 0
        self.broken = False
        """Something was not kept: a resume would hide a loss."""

    def __len__(self) -> int:
        return len(self._unacknowledged)

    def append(self, event: Event | Forwarded) -> tuple[int, bytes]:
        """Number an event and keep it; gives the number and the text frame.

        :raises MailboxFull: it was not kept.
        """
        event.seq = self.last + 1
        frame = encode(event)
        size = len(frame)
        full = len(self._unacknowledged) >= self._most_messages
        if full or not self._backlog.put(size, self._bytes, self._most_bytes):
            raise MailboxFull
        self._bytes += size
        self.last += 1
        entry = self.last, frame
        self._unacknowledged.append(entry)
        return entry

    def acknowledge(self, seq: int) -> None:
        """Everything up to ``seq`` has arrived; a number from the future changes nothing."""
        if seq > self.last:
            return
        self.acknowledged = max(self.acknowledged, seq)
        before = self.last - len(self._unacknowledged)
        gone = max(0, seq - before)  # no number is left out
        size = sum([len(frame) for _, frame in self._unacknowledged[:gone]])
        del self._unacknowledged[:gone]
        self._bytes -= size
        self._backlog.take(size)

    def clear(self) -> None:
        """Hold nothing any more: the session has ended."""
        self.acknowledge(self.last)

    def after(self, seq: int) -> list[tuple[int, bytes]] | None:
        """Everything after ``seq``; None where some of it is not kept any more."""
        if self.broken or not self.acknowledged <= seq <= self.last:
            return None
        return [entry for entry in self._unacknowledged if entry[0] > seq]


class RecentRequests:
    """Which requests of a session were done lately, so that a retry is done once."""

    __slots__ = ("_before", "_latest")

    def __init__(self) -> None:
        # Two generations: to forget the older one whole costs no request anything.
        self._latest: set[str] = set()
        self._before: Set[str] = frozenset()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._latest or request_id in self._before

    def add(self, request_id: str) -> None:
        """It is done; at least the latest ``LEAST_REMEMBERED_IDS`` are remembered.

        :param request_id: "" of one that cannot be asked for again.
        """
        if request_id:
            self._latest.add(request_id)
        if len(self._latest) >= LEAST_REMEMBERED_IDS:
            self._before, self._latest = self._latest, set()


class RateLimit:
    """Messages a second, with a burst."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated", "refused")

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = self._burst
        self._updated = now
        self.refused = 0.0
        """Messages refused lately; forgotten half as fast as messages are let through."""

    def delay(self, now: float) -> float:
        """Count one more message; the seconds to wait so that it is within the limit."""
        tokens = self._tokens = self._refilled(now) - 1
        return -tokens / self._rate if tokens < 0 else 0.0

    def allow(self, now: float) -> bool:
        """Whether one more message is within the limit."""
        tokens = self._tokens = self._refilled(now)
        if tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        return True

    def _refilled(self, now: float) -> float:
        """The tokens that there are now."""
        refill = (now - self._updated) * self._rate
        self._updated = now
        if self.refused:
            self.refused = max(0.0, self.refused - refill / 2)
        tokens = self._tokens + refill
        if tokens > self._burst:  # noqa: PLR1730 - min() would take longer than all the rest
            tokens = self._burst
        return tokens
