"""How many sockets each holder of tokens has open at this node: one must not take them all.

A token is good for any number of sessions until it expires. Its holder is the user whom it names
(``sub``); tokens that name nobody are those of their room. Rooms that are open to everyone have
no holders: there is nobody whom a limit could be for.
"""

from collections import Counter

from signaling.broker.base import Grant

ROOMS_FULL = 2
"""Of sockets that tokens without a user may have, beside the limit for one user: a room's peers,
and for each the socket that it has lost and nobody has missed yet."""


class Holders:
    """Counts open sockets."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def has_room(self, grant: Grant, most: int) -> bool:
        """Whether one more may be open. :param most: of one user; 0: any number."""
        holder = _holder(grant)
        if not (most and holder):
            return True
        if not grant.subject:
            most = max(most, ROOMS_FULL * grant.capacity)
        return self._open[holder] < most

    def add(self, grant: Grant) -> None:
        """One is open."""
        if holder := _holder(grant):
            self._open[holder] += 1

    def remove(self, grant: Grant) -> None:
        """It is closed."""
        if holder := _holder(grant):
            self._open[holder] -= 1
            if not self._open[holder]:
                del self._open[holder]


def _holder(grant: Grant) -> str:
    """Empty: nobody."""
    if grant.subject:
        return f"user {grant.subject}"
    return f"room {grant.room}" if grant.room else ""
