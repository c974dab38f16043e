"""Messages out of a stream of bytes (RFC 8489 §6.2.2, RFC 8656 §12.5).

On a stream both kinds of message say how long they are, and ChannelData is padded to a multiple
of four. What begins as neither is not ours: there is no way to find the next message, so the
connection is over.
"""

from collections.abc import Iterator

from turn.codec.errors import Malformed

HEAD_BYTES = 4
"""Both kinds have their length in the third and fourth byte."""


class StreamFramer:
    """Cuts one connection's bytes into messages; keeps at most one message that is incomplete."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        """Give each message that is complete now; they are views of ``data`` where they can be.

        :raises Malformed: the bytes are no messages.
        """
        if self._rest:
            data = self._complete(data)
            whole = self._take()
            if whole is not None:
                yield whole
            if not data:
                return
        offset, end = 0, len(data)
        while end - offset >= HEAD_BYTES:
            size, padded = _frame_size(data[offset : offset + HEAD_BYTES])
            if end - offset < padded:
                break
            yield data[offset : offset + size]
            offset += padded
        if offset < end:
            _check_first(data[offset])
            self._rest += data[offset:]

    def _complete(self, data: memoryview) -> memoryview:
        """Move to ``_rest`` what its message still lacks; gives what is left of ``data``."""
        missing = HEAD_BYTES - len(self._rest)
        if missing > 0:
            self._rest += data[:missing]
            data = data[missing:]
        if len(self._rest) >= HEAD_BYTES:
            missing = _frame_size(memoryview(self._rest)[:HEAD_BYTES])[1] - len(self._rest)
            self._rest += data[:missing]
            data = data[missing:]
        return data

    def _take(self) -> memoryview | None:
        """The message that ``_rest`` holds, if it is complete."""
        if len(self._rest) < HEAD_BYTES:
            return None
        size, padded = _frame_size(memoryview(self._rest)[:HEAD_BYTES])
        if len(self._rest) < padded:
            return None
        whole, self._rest = self._rest, bytearray()
        return memoryview(whole)[:size]


def _frame_size(head: memoryview) -> tuple[int, int]:
    """The size of a message, and of the room that it takes with its padding."""
    _check_first(head[0])
    length = head[2] << 8 | head[3]
    if head[0] < 0x40:
        if length % 4:
            raise Malformed("a STUN message whose length is no multiple of four")
        return length + 20, length + 20
    return length + 4, length + 4 + (-length & 3)


def _check_first(byte: int) -> None:
    # RFC 7983 §7: STUN begins with 0 to 3, ChannelData with 64 to 79 (RFC 5766: to 127).
    if not (byte < 0x04 or 0x40 <= byte < 0x80):
        raise Malformed("neither STUN nor ChannelData")
