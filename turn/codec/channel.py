"""Channel numbers (RFC 8656 §12); ChannelData itself is read and written on the packet path."""

import struct

HEADER = struct.Struct("!HH")
"""ChannelData: channel number, length of the payload behind it (RFC 8656 §12.4)."""
HEADER_BYTES = 4
FIRST_CHANNEL = 0x4000
LAST_CHANNEL = 0x7FFF
"""RFC 8656 §12 ends at 0x4FFF; RFC 5766 §11 had all up to here, and deployed clients use them."""


def is_channel_number(number: int) -> bool:
    """Whether a client may bind this number."""
    return FIRST_CHANNEL <= number <= LAST_CHANNEL
