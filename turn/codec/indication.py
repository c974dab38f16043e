"""Send and Data indications on the packet path (RFC 8656 §11): Firefox and libjuice relay so.

A Send indication of the plain shape is read without building a ``Message``; whatever is not
plain takes the long way and means the same.
"""

import struct

from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.integrity import fingerprint_of
from turn.codec.message import (
    ATTRIBUTE_HEAD,
    FINGERPRINT,
    FINGERPRINT_ATTRIBUTE,
    HEADER,
    HEADER_BYTES,
    parse_untrusted,
)
from turn.codec.registry import MessageClass, Method
from turn.codec.values import MAGIC_COOKIE, Address, decode_xor_address, encode_xor_address

SEND_TYPE = 0x0016
DATA_TYPE = 0x0017
# The plain shape to an IPv4 and to an IPv6 peer: header, XOR-PEER-ADDRESS, head of DATA. Behind
# the payload there may be FINGERPRINT, as libjuice has it, and nothing else.
PLAIN_IPV4 = struct.Struct("!HHI12sHH8sHH")
PLAIN_IPV6 = struct.Struct("!HHI12sHH20sHH")
PEER_SIZE_OFFSET = 23
PEER = registry.XOR_PEER_ADDRESS.number
DATA = registry.DATA.number
KNOWN: frozenset[int] = frozenset(
    {PEER, DATA, registry.DONT_FRAGMENT.number, registry.MESSAGE_INTEGRITY.number}
)


Sent = tuple[Address, memoryview, bool]
"""The peer, the payload, and whether the packet must not be fragmented."""


def parse_send_indication(message: memoryview) -> Sent | None:
    """What a Send indication wants sent; None where it is none, or malformed."""
    try:
        return _parse_plain_untrusted(message) or _parse_any_untrusted(message)
    except Malformed:
        return None


def _parse_plain_untrusted(message: memoryview) -> Sent | None:
    """The same for the plain shape alone; None where it is another."""
    size = len(message)
    if size < PLAIN_IPV4.size:
        return None
    shape = PLAIN_IPV6 if message[PEER_SIZE_OFFSET] == 20 else PLAIN_IPV4
    start = shape.size
    if size < start:
        return None
    message_type, length, cookie, transaction_id, first, peer_size, peer, second, data_size = (
        shape.unpack_from(message)
    )
    end = start + data_size
    behind = size - end - (-data_size & 3)
    if (
        message_type != SEND_TYPE
        or cookie != MAGIC_COOKIE
        or length != size - HEADER_BYTES
        or first != PEER
        or peer_size != len(peer)
        or second != DATA
        or (behind and not _ends_with_fingerprint(message, behind))
    ):
        return None
    return decode_xor_address(peer, transaction_id), message[start:end], False


def _ends_with_fingerprint(message: memoryview, behind: int) -> bool:
    """Whether the last bytes, ``behind`` in number, are a FINGERPRINT, and the right one."""
    if behind != FINGERPRINT_ATTRIBUTE.size:
        return False
    number, length, value = FINGERPRINT_ATTRIBUTE.unpack_from(message, len(message) - behind)
    if number != FINGERPRINT or length != 4:
        return False
    return bool(value == fingerprint_of(message[:-behind]))


def _parse_any_untrusted(message: memoryview) -> Sent | None:
    parsed = parse_untrusted(message)
    peer = parsed.get(registry.XOR_PEER_ADDRESS)
    data = parsed.get(registry.DATA)
    if parsed.method != Method.SEND or parsed.message_class != MessageClass.INDICATION:
        return None
    # RFC 8489 §6.3.2: an indication with a required attribute that nobody knows is discarded.
    if peer is None or data is None or parsed.unknown_required(KNOWN):
        return None
    return peer, memoryview(data), parsed.has(registry.DONT_FRAGMENT)


def data_indication_header(transaction_id: bytes, peer: Address) -> bytes:
    """A Data indication up to its payload; message length and DATA's length are left zero."""
    address = encode_xor_address(peer, transaction_id)
    return (
        HEADER.pack(DATA_TYPE, 0, MAGIC_COOKIE, transaction_id)
        + ATTRIBUTE_HEAD.pack(PEER, len(address))
        + address
        + ATTRIBUTE_HEAD.pack(DATA, 0)
    )
