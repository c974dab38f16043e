"""A session's mailbox: numbered, acknowledged, replayed; and what makes a retry harmless.

The numbering is the recipient's own: 1, 2, 3, … whatever the senders. A client that comes back
says the last number it saw and gets everything after it, or learns that this cannot be had.
"""

from collections import OrderedDict
from collections.abc import Hashable

from signaling.protocol.messages import Event, encode
from signaling.protocol.peerjs import Forwarded
from signaling.shelf import Shelf

MOST_REMEMBERED_IDS = 512
"""Requests whose answers are kept for a retry after a reconnect."""


class MailboxFull(Exception):
    """The recipient has not acknowledged for so long that nothing more is kept."""


class Mailbox:
    """What a session was sent and has not acknowledged."""

    def __init__(self, most_messages: int, most_bytes: int, shelf: Shelf | None = None) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._shelf = shelf or Shelf()
        self._bytes = 0
        self._unacknowledged: list[tuple[int, str]] = []  # a deque takes 600 bytes when empty
        self.last = 0
        """The number of the newest entry."""
        self.acknowledged = 0
        self.broken = False
        """Something was not kept: a resume would hide a loss."""

    def __len__(self) -> int:
        return len(self._unacknowledged)

    def append(self, event: Event | Forwarded) -> tuple[int, str]:
        """Number an event and keep it; gives the number and the text frame.

        :raises MailboxFull: it was not kept.
        """
        event.seq = self.last + 1
        text = encode(event)
        full = len(self._unacknowledged) >= self._most_messages
        if full or self._bytes + len(text) > self._shelf.share(self._most_bytes):
            raise MailboxFull
        self.last += 1
        self._bytes += len(text)
        self._shelf.bytes += len(text)
        self._unacknowledged.append((self.last, text))
        return self.last, text

    def acknowledge(self, seq: int) -> None:
        """Everything up to ``seq`` has arrived; a number from the future changes nothing."""
        if seq > self.last:
            return
        self.acknowledged = max(self.acknowledged, seq)
        gone = 0
        for number, text in self._unacknowledged:
            if number > seq:
                break
            gone += 1
            self._bytes -= len(text)
            self._shelf.bytes -= len(text)
        del self._unacknowledged[:gone]

    def clear(self) -> None:
        """Hold nothing any more: the session has ended."""
        self.acknowledge(self.last)

    def after(self, seq: int) -> list[tuple[int, str]] | None:
        """Everything after ``seq``; None where some of it is not kept any more."""
        if self.broken or not self.acknowledged <= seq <= self.last:
            return None
        return [entry for entry in self._unacknowledged if entry[0] > seq]


class RecentRequests:
    """The answers to a session's recent requests, so that a retry is done once."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, str] = OrderedDict()

    def get(self, request_id: str) -> str | None:
        """The answer that a request with this id got, as a text frame."""
        return self._answers.get(request_id)

    def put(self, request_id: str, answer: str) -> None:
        """Keep an answer; the oldest make room."""
        self._answers[request_id] = answer
        if len(self._answers) > MOST_REMEMBERED_IDS:
            self._answers.popitem(last=False)


class RateLimit:
    """Messages a second, with a burst."""

    __slots__ = ("_burst", "_rate", "_tokens", "_updated", "refused")

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._updated = now
        self.refused = 0.0
        """Messages refused lately; forgotten half as fast as messages are let through."""

    def delay(self, now: float) -> float:
        """Count one more message; the seconds to wait so that it is within the limit."""
        self._refill(now)
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def allow(self, now: float) -> bool:
        """Whether one more message is within the limit."""
        self._refill(now)
        if self._tokens < 1:
            self.refused += 1
            return False
        self._tokens -= 1
        return True

    def _refill(self, now: float) -> None:
        refill = (now - self._updated) * self._rate
        self._tokens = min(self._burst, self._tokens + refill)
        self.refused = max(0.0, self.refused - refill / 2)
        self._updated = now
