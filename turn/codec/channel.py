"""ChannelData: four bytes in front of the payload (RFC 8656 §12.4).

```
 0                   1                   2                   3
|  channel number 16 bits       |  length of the payload        |
```
The packet path (``relay.forward``) reads and writes the same four bytes in place.
"""

import struct

from turn.codec.errors import Malformed

HEADER = struct.Struct("!HH")
"""Channel number, length of the payload behind it."""
HEADER_BYTES = 4
FIRST_CHANNEL = 0x4000
LAST_CHANNEL = 0x7FFF
"""RFC 8656 §12 ends at 0x4FFF; RFC 5766 §11 had all up to here, and deployed clients use them."""


def is_channel_number(number: int) -> bool:
    """Whether a client may bind this number."""
    return FIRST_CHANNEL <= number <= LAST_CHANNEL


def parse_untrusted(message: memoryview) -> tuple[int, memoryview]:
    """The channel and the payload; bytes behind it are padding (RFC 8656 §12.5).

    :raises Malformed: no channel number, or fewer bytes than the length says.
    """
    if len(message) < HEADER_BYTES:
        raise Malformed("ChannelData shorter than its header")
    channel, length = HEADER.unpack_from(message)
    if not is_channel_number(channel):
        raise Malformed("not a channel number")
    if HEADER_BYTES + length > len(message):
        raise Malformed("ChannelData that is cut off")
    return channel, message[HEADER_BYTES : HEADER_BYTES + length]


def encode(channel: int, payload: bytes, *, padded: bool) -> bytes:
    """A ChannelData message; ``padded`` to a multiple of four bytes, as on a stream."""
    padding = bytes(-len(payload) & 3) if padded else b""
    return HEADER.pack(channel, len(payload)) + payload + padding
