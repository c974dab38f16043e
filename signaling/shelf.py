"""What waits for all clients together: it has an end, however many clients there are.

A thousand sessions that let a megabyte lie each would end the process for everybody. So beyond a
limit each may let an eighth lie of what it may otherwise: negotiation needs less than that.
"""

MOST_BYTES_IN_ALL = 256 << 20
CROWDED = 8


class Shelf:
    """Holds the bytes of all mailboxes, or of all sockets' queues, of a process."""

    __slots__ = ("_most_bytes", "bytes")

    def __init__(self, most_bytes: int = MOST_BYTES_IN_ALL) -> None:
        self._most_bytes = most_bytes
        self.bytes = 0

    def share(self, most_bytes: int) -> int:
        """What one may let lie now that otherwise may let so many bytes lie."""
        return most_bytes if self.bytes <= self._most_bytes else most_bytes // CROWDED
