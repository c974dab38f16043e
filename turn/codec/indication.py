"""Send and Data indications on the packet path (RFC 8656 §11): Firefox and libjuice relay so.

A Send indication of the plain shape is read without building a ``Message``; whatever is not
plain takes the long way and means the same.
"""

import struct

from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.message import ATTRIBUTE_HEAD, HEADER, HEADER_BYTES, parse_untrusted
from turn.codec.registry import Attribute
from turn.codec.values import (
    MAGIC_COOKIE,
    Address,
    decode_xor_address,
    encode_xor_address,
)

SEND_TYPE = 0x0016
DATA_TYPE = 0x0017
# The plain shape to an IPv4 peer: header, XOR-PEER-ADDRESS of 8 bytes, DATA up to the end.
PLAIN = struct.Struct("!HHI12sHH8sHH")
PEER = registry.XOR_PEER_ADDRESS.number
DATA = registry.DATA.number
KNOWN: frozenset[int] = frozenset(
    {PEER, DATA, registry.DONT_FRAGMENT.number, registry.MESSAGE_INTEGRITY.number}
)


def parse_send_indication(message: memoryview) -> tuple[Address, memoryview] | None:
    """The peer and the payload of a Send indication; None where it is none, or malformed."""
    size = len(message)
    if size >= PLAIN.size:
        _type, length, cookie, transaction_id, first, first_size, peer, second, data_size = (
            PLAIN.unpack_from(message)
        )
        if (
            first == PEER
            and first_size == 8
            and second == DATA
            and cookie == MAGIC_COOKIE
            and length == size - HEADER_BYTES
            and PLAIN.size + data_size + (-data_size & 3) == size
        ):
            try:
                address = decode_xor_address(peer, transaction_id)
            except Malformed:
                return None
            return address, message[PLAIN.size : PLAIN.size + data_size]
    return _parse_any(message)


def _parse_any(message: memoryview) -> tuple[Address, memoryview] | None:
    try:
        parsed = parse_untrusted(message)
        peer = parsed.get(registry.XOR_PEER_ADDRESS)
        data = parsed.get(registry.DATA)
    except Malformed:
        return None
    if peer is None or data is None or parsed.unknown_required(KNOWN):
        return None
    return peer, memoryview(data)


def data_indication_header(transaction_id: bytes, peer: Address) -> bytes:
    """A Data indication up to its payload; message length and DATA's length are left zero."""
    address = _attribute(registry.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id))
    head = HEADER.pack(DATA_TYPE, 0, MAGIC_COOKIE, transaction_id)
    return head + address + ATTRIBUTE_HEAD.pack(DATA, 0)


def _attribute(attribute: Attribute[Address], value: bytes) -> bytes:
    return ATTRIBUTE_HEAD.pack(attribute.number, len(value)) + value
