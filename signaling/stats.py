"""What signaling counts: plain integers, exported by ``metrics`` alone."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

DELIVERY_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds in seconds."""
WEBHOOKS = ("delivered", "failed", "given_up")
DECISIONS = ("allowed", "refused", "failed")
PATHS = ("host", "srflx", "prflx", "relay")
"""Candidate types that a call's path can have (RFC 8445 §5.1.1)."""


Tell = Callable[[str, Mapping[str, object]], None]
"""Takes a kind of event and its facts, for operators who watch; returns at once, never raises."""


def to_nobody(kind: str, facts: Mapping[str, object]) -> None:
    """Tell nobody."""


class Histogram:
    """Counts observations by their size."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(DELIVERY_BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: Iterable[float]) -> None:
        """Count each."""
        counts = self.counts
        for each in seconds:
            counts[bisect_left(DELIVERY_BUCKETS, each)] += 1
            self.total += each


class Stats:
    """The counters of one signaling process."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        """Messages received, by type."""
        self.delivery = Histogram()
        """From a message's arrival at its recipient's node to its hand-over to the socket."""
        self.disconnects: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.ice_results: Counter[str] = Counter()
        self.webhooks: Counter[str] = Counter()
        """Tries to tell a back end of something, by how they ended."""
        self.join_decisions: Counter[str] = Counter()
        """Decisions of a back end who may join."""
