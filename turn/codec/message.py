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
from functools import lru_cache
from typing import Any, TypeVar

from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.integrity import (
    NONE,
    WITH_SHA1,
    WITH_SHA256,
    Integrity,
    digest,
    fingerprint_of,
)
from turn.codec.registry import Attribute, Attributes, MessageClass
from turn.codec.values import MAGIC_COOKIE

T = TypeVar("T")

HEADER = struct.Struct("!HHI12s")
HEADER_BYTES = 20
ATTRIBUTE_HEAD = struct.Struct("!HH")
FINGERPRINT_ATTRIBUTE = struct.Struct("!HHI")
PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
"""Behind a value, by the last two bits of its length."""

SHA1 = registry.MESSAGE_INTEGRITY.number
SHA256 = registry.MESSAGE_INTEGRITY_SHA256.number
FINGERPRINT = registry.FINGERPRINT.number
PROTECTION = frozenset({SHA1, SHA256, FINGERPRINT})
# What still counts behind an integrity attribute (RFC 8489 §14.5, §14.6).
AFTER_SHA1 = frozenset({SHA256, FINGERPRINT})
AFTER_SHA256 = frozenset({FINGERPRINT})
NOTHING: frozenset[int] = frozenset()


class Message:
    """A message that was read. Values are decoded when they are asked for."""

    __slots__ = (
        "_first",
        "_more",
        "integrity",
        "integrity_offset",
        "message_class",
        "method",
        "raw",
        "transaction_id",
    )

    def __init__(self, raw: bytes, message_type: int, transaction_id: bytes) -> None:
        self.raw = raw
        self.method, self.message_class = _parts_of(message_type)
        """A ``registry.Method``, or a number that is none; and the class."""
        self.transaction_id = transaction_id
        self.integrity = NONE
        """The strongest integrity attribute that the message has."""
        self.integrity_offset = 0
        """Where that attribute begins in ``raw``."""
        self._first: dict[int, bytes] = {}
        """The value of the first attribute of each kind: mostly that is all there are."""
        self._more: list[tuple[int, bytes]] = []
        """The others, in order."""

    def read_attributes_untrusted(self) -> None:
        """Take in the attributes of ``raw``, and pass over those that do not count.

        :raises Malformed: one is cut off, or the fingerprint is wrong or not the last.
        """
        raw, first, unpack_head = self.raw, self._first, ATTRIBUTE_HEAD.unpack_from
        offset, size = HEADER_BYTES, len(raw)
        while offset < size:
            number, length = unpack_head(raw, offset)
            if number in PROTECTION:
                self._read_protection_untrusted(offset)
                return
            start = offset + 4
            end = start + length
            if end > size:
                raise Malformed("an attribute that is cut off")
            if number in first:
                self._more.append((number, raw[start:end]))
            else:
                first[number] = raw[start:end]
            offset = end + 3 & ~3

    def _read_protection_untrusted(self, offset: int) -> None:
        """Take in what counts from the first attribute of ``PROTECTION`` on."""
        raw, counting = self.raw, PROTECTION
        while offset < len(raw):
            number, length = ATTRIBUTE_HEAD.unpack_from(raw, offset)
            end = offset + 4 + length
            if end > len(raw):
                raise Malformed("an attribute that is cut off")
            if number in counting:
                self._first[number] = raw[offset + 4 : end]
                counting = self._protect_untrusted(number, offset, length)
            offset = end + 3 & ~3

    def _protect_untrusted(self, number: int, offset: int, length: int) -> frozenset[int]:
        """Take in an attribute of ``PROTECTION``; gives those that count behind it."""
        if number == FINGERPRINT:
            _check_fingerprint_untrusted(self.raw, offset, length)
            return NOTHING
        self.integrity_offset = offset
        if number == SHA1:
            self.integrity = WITH_SHA1
            return AFTER_SHA1
        self.integrity = WITH_SHA256
        return AFTER_SHA256

    def get(self, attribute: Attribute[T]) -> T | None:
        """The value of the first attribute of this kind (RFC 8489 §14), None where there is none.

        :raises Malformed: its bytes are no such value.
        """
        value = self._first.get(attribute.number)
        return None if value is None else attribute.decode(value, self.transaction_id)

    def value_of(self, attribute: Attribute[Any]) -> bytes | None:
        """The bytes of the first attribute of this kind, as they came."""
        return self._first.get(attribute.number)

    def get_all(self, attribute: Attribute[T]) -> list[T]:
        """Every value of this kind, in order. :raises Malformed: as ``get``."""
        number = attribute.number
        if number not in self._first:
            return []
        values = self._first[number], *(value for found, value in self._more if found == number)
        return [attribute.decode(value, self.transaction_id) for value in values]

    def has(self, attribute: Attribute[Any]) -> bool:
        """Whether there is an attribute of this kind."""
        return attribute.number in self._first

    def lacks(self, numbers: frozenset[int]) -> bool:
        """Whether there is no attribute of any of these kinds."""
        return numbers.isdisjoint(self._first)

    def unknown_required(self, known: frozenset[int]) -> tuple[int, ...]:
        """The comprehension-required attributes that are not ``known``, each once, in order."""
        if known.issuperset(self._first):  # as they mostly are
            return ()
        return tuple([n for n in self._first if n < 0x8000 and n not in known])


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
    if length & 3 or length != size - HEADER_BYTES:
        raise Malformed("a length that is not the message's")
    message = Message(raw, message_type, transaction_id)
    message.read_attributes_untrusted()
    return message


def build(
    method: int,
    message_class: MessageClass,
    transaction_id: bytes,
    attributes: Attributes,
    *,
    key: bytes | None = None,
    integrity: Integrity = NONE,
    fingerprint: bool = False,
    written: bytes = b"",
) -> bytes:
    """Write a message.

    :param key: the key of the integrity attribute.
    :param written: attributes in front of these, as ``write`` gives them.
    :raises ValueError: an integrity attribute without a key, or text beyond its limit.
    :raises struct.error: more than 65,535 bytes.
    """
    kind = _type_of(method, message_class)
    body = written + write(attributes, transaction_id)
    # What protects a message covers a header that counts it already, and so does it go out.
    protection = integrity.size + ATTRIBUTE_HEAD.size if integrity is not NONE else 0
    message = HEADER.pack(kind, len(body) + protection, MAGIC_COOKIE, transaction_id) + body
    if protection:
        if key is None:
            raise ValueError("an integrity attribute needs a key")
        number = SHA1 if integrity is WITH_SHA1 else SHA256
        message += ATTRIBUTE_HEAD.pack(number, integrity.size) + digest(integrity, key, message)
    if fingerprint:
        length = len(message) - HEADER_BYTES + FINGERPRINT_ATTRIBUTE.size
        message = message[:2] + length.to_bytes(2) + message[4:]
        message += FINGERPRINT_ATTRIBUTE.pack(FINGERPRINT, 4, fingerprint_of(message))
    return message


def write(attributes: Attributes, transaction_id: bytes) -> bytes:
    """Write attributes as they stand in a message. :raises ValueError: text beyond its limit."""
    parts: list[bytes] = []
    for attribute, value in attributes:
        encoded = attribute.encode(value, transaction_id)
        size = len(encoded)
        parts += ATTRIBUTE_HEAD.pack(attribute.number, size), encoded, PADDING[size & 3]
    return b"".join(parts)


@lru_cache(maxsize=64)
def _parts_of(message_type: int) -> tuple[int, MessageClass]:
    """The method and the class of a message, taken apart (RFC 8489 §5)."""
    method = message_type & 0xF | message_type >> 1 & 0x70 | message_type >> 2 & 0xF80
    return method, MessageClass(message_type >> 4 & 1 | message_type >> 7 & 2)


@lru_cache(maxsize=64)
def _type_of(method: int, message_class: MessageClass) -> int:
    """The bits of the class lie between those of the method (RFC 8489 §5)."""
    return (
        (method & 0xF80) << 2
        | (method & 0x70) << 1
        | method & 0xF
        | (message_class & 2) << 7
        | (message_class & 1) << 4
    )


def _check_fingerprint_untrusted(raw: bytes, offset: int, length: int) -> None:
    if length != 4 or offset + FINGERPRINT_ATTRIBUTE.size != len(raw):
        raise Malformed("FINGERPRINT is not the last attribute")
    if int.from_bytes(raw[offset + 4 :]) != fingerprint_of(raw[:offset]):
        raise Malformed("a wrong FINGERPRINT")
