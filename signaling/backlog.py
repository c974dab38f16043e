"""What waits for all clients together: it has an end, however many clients there are.

A thousand sessions that let a megabyte lie each would end the process for everybody. So beyond a
limit each may let an eighth lie of what it may otherwise: negotiation needs less than that.
"""

MOST_BYTES_IN_ALL = 256 << 20
CROWDED = 8


class Backlog:
    """Holds the bytes of all mailboxes, or of all sockets' queues, of a process."""

    __slots__ = ("_most_bytes", "bytes")

    def __init__(self, most_bytes: int = MOST_BYTES_IN_ALL) -> None:
        self._most_bytes = most_bytes
        self.bytes = 0

    def put(self, size: int, beside: int, most: int) -> bool:
        """Let so many bytes lie, if that may be: else nothing is done.

        :param beside: bytes that whoever puts them there lets lie already.
        :param most: bytes that it may let lie in all, unless it is crowded.
        """
        if self.bytes > self._most_bytes:
            most //= CROWDED
        if beside + size > most:
            return False
        self.bytes += size
        return True

    def take(self, size: int) -> None:
        """So many bytes lie there no longer."""
        self.bytes -= size
