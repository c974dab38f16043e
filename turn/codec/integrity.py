"""MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 (RFC 8489 §14.5, §14.6)."""

import hmac
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a message is read with the names below
    from turn.codec.message import Message


class Integrity(Enum):
    """What protects a message: nothing, or one of the two attributes."""

    NONE = ("", 0)
    SHA1 = ("sha1", 20)
    SHA256 = ("sha256", 32)

    def __init__(self, algorithm: str, size: int) -> None:
        self.algorithm = algorithm
        self.size = size


def digest(integrity: Integrity, key: bytes, data: bytes) -> bytes:
    """The HMAC of a message up to its integrity attribute."""
    return hmac.digest(key, data, integrity.algorithm)


def verify(message: "Message", key: bytes) -> bool:
    """Whether a message's integrity attribute was made with ``key``, in constant time.

    A SHA-256 value may be cut off to 16 bytes or more (RFC 8489 §14.6).
    """
    raw, offset, integrity = message.raw, message.integrity_offset, message.integrity
    if integrity is Integrity.NONE:
        return False
    size = int.from_bytes(raw[offset + 2 : offset + 4])
    if size != integrity.size and (integrity is Integrity.SHA1 or not 16 <= size <= 32 or size % 4):
        return False
    # The length in the header counts up to the integrity attribute's end, whatever follows it.
    length = offset + 4 + size - 20
    covered = raw[:2] + length.to_bytes(2) + raw[4:offset]
    return hmac.compare_digest(
        digest(integrity, key, covered)[:size], raw[offset + 4 : offset + 4 + size]
    )
