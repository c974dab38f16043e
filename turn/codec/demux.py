"""What a packet is, by its first byte (RFC 7983 §7): one port carries both kinds of message."""

from enum import IntEnum


class Kind(IntEnum):
    """What a packet or a frame can be to this server."""

    OTHER = 0
    """ZRTP, DTLS, RTP, QUIC, or nothing that anybody knows: not ours."""
    STUN = 1
    CHANNEL = 2
    """ChannelData (RFC 8656 §12.4)."""


RANGES: tuple[tuple[int, int, Kind], ...] = (
    (0x00, 0x03, Kind.STUN),  # the first two bits of a STUN message are zero (RFC 8489 §5)
    (0x04, 0x3F, Kind.OTHER),  # 16-19 ZRTP, 20-63 DTLS and TLS
    (0x40, 0x4F, Kind.CHANNEL),
    (0x50, 0x7F, Kind.CHANNEL),  # channels of RFC 5766 §11, since given to QUIC; clients use them
    (0x80, 0xFF, Kind.OTHER),  # 128-191 RTP and RTCP
)
"""First byte, last byte, kind."""

KINDS: tuple[Kind, ...] = tuple(
    kind for first, last, kind in RANGES for _ in range(first, last + 1)
)
"""The kind for each first byte."""


def classify(first_byte: int) -> Kind:
    """The kind of a packet that begins with this byte."""
    return KINDS[first_byte]
