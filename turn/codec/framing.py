"""Messages out of a stream of bytes (RFC 8489 §6.2.2, RFC 8656 §12.5).

On a stream both kinds of message say how long they are, and ChannelData is padded to a multiple
of four. What begins as neither is not ours: there is no way to find the next message, so the
connection is over.
"""

import struct
from collections.abc import Iterator

from turn.codec.demux import Kind, classify
from turn.codec.errors import Malformed

HEAD = struct.Struct("!BxH")
"""Of both kinds: the byte that tells which, and the length in the third and fourth byte."""
HEAD_BYTES = 4


class StreamFramer:
    """Cuts one connection's bytes into messages.

    It keeps at most one message that is incomplete: 65,552 bytes.
    """

    __slots__ = ("_began", "_rest", "consumed")

    def __init__(self) -> None:
        self.consumed = 0
        """Bytes of the latest ``feed`` up to the end of the message that it gave last."""
        self._rest = bytearray()
        self._began = False

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        """Give each message that is complete now, without padding.

        They are views of ``data`` where they can be: use them up before it changes.

        :raises Malformed: the bytes are no messages.
        """
        topped_up = 0
        if self._rest:
            size = len(data)
            data = self._top_up(data, HEAD_BYTES)
            if len(self._rest) < HEAD_BYTES:
                return
            length, room = self._measure_untrusted(self._rest, 0)
            data = self._top_up(data, room)
            if len(self._rest) < room:
                return
            whole, self._rest = self._rest, bytearray()
            self.consumed = topped_up = size - len(data)
            yield memoryview(whole)[:length]
        offset, end = 0, len(data)
        while end - offset >= HEAD_BYTES:
            size, room = self._measure_untrusted(data, offset)
            if end - offset < room:
                break
            self.consumed = topped_up + offset + room
            yield data[offset : offset + size]
            offset += room
        if offset < end:
            self._check_untrusted(data[offset])
            self._rest += data[offset:]

    def _top_up(self, data: memoryview, size: int) -> memoryview:
        """Let ``_rest`` grow to ``size`` bytes; gives what is left of ``data``."""
        missing = max(size - len(self._rest), 0)
        self._rest += data[:missing]
        return data[missing:]

    def _measure_untrusted(self, data: bytearray | memoryview, offset: int) -> tuple[int, int]:
        """The size of a message, and of the room that it takes with its padding."""
        first, length = HEAD.unpack_from(data, offset)
        if self._check_untrusted(first) is Kind.CHANNEL:
            return length + 4, length + 4 + (-length & 3)
        if length & 3:
            raise Malformed("a STUN message whose length is no multiple of four")
        self._began = True
        return length + 20, length + 20

    def _check_untrusted(self, first: int) -> Kind:
        kind = classify(first)
        if kind is Kind.OTHER:
            raise Malformed("neither STUN nor ChannelData")
        # Nobody has a channel without having asked for one, while the letters that begin an HTTP
        # request are channel numbers by their looks.
        if kind is Kind.CHANNEL and not self._began:
            raise Malformed("ChannelData before any STUN message")
        return kind
