"""Replies kept for retransmissions: same transaction, same reply (RFC 8489 §6.3.1, 40 s).

Only replies to authenticated requests are kept, so nobody fills this without proof, and only of
methods that would do something else the second time. What counts is
the same bytes: were the transaction id enough, 20 bytes with a forged source would draw a whole
reply, as often as somebody likes.
"""

from collections import OrderedDict

from turn.routes import FiveTuple

REPLY_LIFETIME = 40.0
"""Seconds; the longest that a client goes on retransmitting (RFC 8489 §6.2.1)."""
MOST_REPLIES = 65536


class RecentReplies:
    """The replies of the last 40 seconds, by five-tuple and request."""

    def __init__(self) -> None:
        self._replies: OrderedDict[int, tuple[float, bytes]] = OrderedDict()
        """By a keyed hash of who asked and what: 64 bits that nobody outside can know."""

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, client: FiveTuple, request: bytes, now: float) -> bytes | None:
        """The reply that this very request got already, if it is to be had again."""
        found = self._replies.get(hash((client, request)))
        return found[1] if found and found[0] > now else None

    def put(self, client: FiveTuple, request: bytes, reply: bytes, now: float) -> None:
        """Keep a reply; the oldest make room."""
        self._replies[hash((client, request))] = (now + REPLY_LIFETIME, reply)
        if len(self._replies) > MOST_REPLIES:
            self._replies.popitem(last=False)

    def expire(self, now: float) -> None:
        """Forget what no client asks for any more."""
        while self._replies:
            key = next(iter(self._replies))
            if self._replies[key][0] > now:
                return
            del self._replies[key]
