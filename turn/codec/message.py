"""A STUN message: read from bytes of the network, or built for them (RFC 8489 §5, §14).

```
 0                   1                   2                   3
|0 0|  type 14 bits            |  length without these 20 bytes |
|  magic cookie 0x2112A442                                      |
|  transaction id, 96 bits                                      |
```
then attributes: number 16 bits, length 16 bits, value, zeros up to a multiple of four.
"""

import struct
import zlib
from typing import Any, TypeVar

from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.integrity import Integrity, digest
from turn.codec.registry import Attribute, Attributes, MessageClass
from turn.codec.values import MAGIC_COOKIE

T = TypeVar("T")

HEADER = struct.Struct("!HHI12s")
HEADER_BYTES = 20
ATTRIBUTE_HEAD = struct.Struct("!HH")
FINGERPRINT_XOR = 0x5354554E
FINGERPRINT_BYTES = 8

SHA1 = registry.MESSAGE_INTEGRITY.number
SHA256 = registry.MESSAGE_INTEGRITY_SHA256.number
FINGERPRINT = registry.FINGERPRINT.number
# What may still count once an integrity attribute has been seen (RFC 8489 §14.5, §14.6).
AFTER_SHA1 = frozenset({SHA256, FINGERPRINT})
AFTER_SHA256 = frozenset({FINGERPRINT})


class Message:
    """A message that was read. Values are decoded when they are asked for."""

    __slots__ = (
        "_values",
        "integrity",
        "integrity_offset",
        "message_class",
        "method",
        "raw",
        "transaction_id",
    )

    def __init__(self, raw: bytes, message_type: int, transaction_id: bytes) -> None:
        self.raw = raw
        self.method = message_type & 0xF | message_type >> 1 & 0x70 | message_type >> 2 & 0xF80
        """A ``registry.Method``, or a number that is none."""
        self.message_class = MessageClass(message_type >> 4 & 1 | message_type >> 7 & 2)
        self.transaction_id = transaction_id
        self.integrity = Integrity.NONE
        """The strongest integrity attribute that the message has."""
        self.integrity_offset = 0
        """Where that attribute begins in ``raw``."""
        self._values: list[tuple[int, bytes]] = []

    def get(self, attribute: Attribute[T]) -> T | None:
        """The value of the first attribute of this kind (RFC 8489 §14), None where there is none.

        :raises Malformed: its bytes are no such value.
        """
        number = attribute.number
        for found, value in self._values:
            if found == number:
                return attribute.decode(value, self.transaction_id)
        return None

    def get_all(self, attribute: Attribute[T]) -> list[T]:
        """Every value of this kind, in order. :raises Malformed: as ``get``."""
        number = attribute.number
        return [
            attribute.decode(value, self.transaction_id)
            for found, value in self._values
            if found == number
        ]

    def has(self, attribute: Attribute[Any]) -> bool:
        """Whether there is an attribute of this kind."""
        return any(found == attribute.number for found, _ in self._values)

    def unknown_required(self, known: frozenset[int]) -> tuple[int, ...]:
        """The comprehension-required attributes that are not ``known``, each once, in order."""
        unknown = {n: None for n, _ in self._values if n < 0x8000 and n not in known}
        return tuple(unknown)

    def add_untrusted(self, number: int, value: bytes, offset: int) -> None:
        """Take in the next attribute, or pass over it where it may not count any more."""
        if self.integrity is not Integrity.NONE:
            allowed = AFTER_SHA1 if self.integrity is Integrity.SHA1 else AFTER_SHA256
            if number not in allowed:
                return
        if number in {SHA1, SHA256}:
            self.integrity = Integrity.SHA1 if number == SHA1 else Integrity.SHA256
            self.integrity_offset = offset
        self._values.append((number, value))


def parse_untrusted(data: bytes | bytearray | memoryview) -> Message:
    """Read a whole message.

    :raises Malformed: and nothing else: it is no STUN message, or one that is cut off, is longer
        than it says, or has a wrong fingerprint.
    """
    raw = bytes(data)
    size = len(raw)
    if size < HEADER_BYTES:
        raise Malformed("shorter than a header")
    message_type, length, cookie, transaction_id = HEADER.unpack_from(raw)
    if message_type > 0x3FFF:
        raise Malformed("the first two bits are not zero")
    if cookie != MAGIC_COOKIE:
        raise Malformed("no magic cookie")
    if length % 4 or length != size - HEADER_BYTES:
        raise Malformed("a length that is not the message's")
    message = Message(raw, message_type, transaction_id)
    offset = HEADER_BYTES
    while offset < size:
        number, length = ATTRIBUTE_HEAD.unpack_from(raw, offset)
        end = offset + 4 + length
        if end > size:
            raise Malformed("an attribute that is cut off")
        message.add_untrusted(number, raw[offset + 4 : end], offset)
        if number == FINGERPRINT:
            _check_fingerprint_untrusted(raw, offset, length)
        offset = end + (-length & 3)
    return message


def build(
    method: int,
    message_class: MessageClass,
    transaction_id: bytes,
    attributes: Attributes,
    *,
    key: bytes | None = None,
    integrity: Integrity = Integrity.NONE,
    fingerprint: bool = False,
) -> bytes:
    """Write a message.

    :param key: the key of the integrity attribute; needed where ``integrity`` is not NONE.
    """
    message_type = (
        (method & 0xF80) << 2
        | (method & 0x70) << 1
        | method & 0xF
        | (message_class & 2) << 7
        | (message_class & 1) << 4
    )
    parts = [b""]  # the header, whose length is known last
    length = 0
    for attribute, value in attributes:
        encoded = attribute.encode(value, transaction_id)
        size = len(encoded)
        parts.append(ATTRIBUTE_HEAD.pack(attribute.number, size) + encoded + bytes(-size & 3))
        length += 4 + size + (-size & 3)
    # An integrity value covers a header whose length ends with it (RFC 8489 §14.5).
    if integrity is not Integrity.NONE and key is not None:
        number = SHA1 if integrity is Integrity.SHA1 else SHA256
        length += 4 + integrity.size
        parts[0] = HEADER.pack(message_type, length, MAGIC_COOKIE, transaction_id)
        mac = digest(integrity, key, b"".join(parts))
        parts.append(ATTRIBUTE_HEAD.pack(number, integrity.size) + mac)
    if fingerprint:
        length += FINGERPRINT_BYTES
        parts[0] = HEADER.pack(message_type, length, MAGIC_COOKIE, transaction_id)
        checksum = fingerprint_of(b"".join(parts))
        parts.append(ATTRIBUTE_HEAD.pack(FINGERPRINT, 4) + checksum.to_bytes(4))
    parts[0] = HEADER.pack(message_type, length, MAGIC_COOKIE, transaction_id)
    return b"".join(parts)


def fingerprint_of(data: bytes) -> int:
    """The FINGERPRINT of a message that ends before it (RFC 8489 §14.7).

    The length in its header includes the attribute.
    """
    return zlib.crc32(data) ^ FINGERPRINT_XOR


def _check_fingerprint_untrusted(raw: bytes, offset: int, length: int) -> None:
    if length != 4 or offset + FINGERPRINT_BYTES != len(raw):
        raise Malformed("FINGERPRINT is not the last attribute")
    if int.from_bytes(raw[offset + 4 :]) != fingerprint_of(raw[:offset]):
        raise Malformed("a wrong FINGERPRINT")
