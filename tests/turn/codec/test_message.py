"""Whole messages: what is read, what is passed over, what is refused, what is written."""

import struct

import pytest

from tests.turn.codec.wire import (
    ALLOCATE_ERROR,
    ALLOCATE_REQUEST,
    BINDING_REQUEST,
    COOKIE,
    CREATE_PERMISSION_REQUEST,
    SEND_INDICATION,
    TRANSACTION,
    attribute,
    stun,
    with_fingerprint,
)
from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.integrity import Integrity, verify
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

KEY = b"0123456789abcdef"
LIFETIME = attribute(0x000D, bytes.fromhex("00000258"))
PEER = attribute(0x0012, bytes.fromhex("0001 2112 2112a443"))  # port 0, 0.0.0.1
UNKNOWN_REQUIRED = attribute(0x7FFE, b"?")
UNKNOWN_OPTIONAL = attribute(0xFFFE, b"?")
SHA1 = attribute(0x0008, bytes(20))
SHA256 = attribute(0x001C, bytes(32))
LIFETIME_600 = ((registry.LIFETIME, 600),)


# The header ---------------------------------------------------------------------------------


def test_header():
    message = parse_untrusted(stun(ALLOCATE_ERROR))
    assert message.method == Method.ALLOCATE
    assert message.message_class is MessageClass.ERROR
    assert message.transaction_id == TRANSACTION


@pytest.mark.parametrize(
    ("message_type", "method", "message_class"),
    [  # RFC 8489 §5, figure 3: M11..M7 C1 M6..M4 C0 M3..M0
        (0b00_00000_0_000_0_0001, 0x001, MessageClass.REQUEST),
        (0b00_00000_0_000_1_0110, 0x006, MessageClass.INDICATION),
        (0b00_00000_1_000_0_0011, 0x003, MessageClass.SUCCESS),
        (0b00_00000_1_000_1_1001, 0x009, MessageClass.ERROR),
        (0b00_00000_0_111_0_0000, 0x070, MessageClass.REQUEST),
        (0b00_11111_0_000_0_0000, 0xF80, MessageClass.REQUEST),
        (0b00_11111_1_111_1_1111, 0xFFF, MessageClass.ERROR),
    ],
)
def test_message_type(message_type, method, message_class):
    message = parse_untrusted(stun(message_type))
    assert (message.method, message.message_class) == (method, message_class)
    assert build(method, message_class, TRANSACTION, ()) == stun(message_type)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer(kind):
    data = kind(stun(ALLOCATE_REQUEST, LIFETIME))
    message = parse_untrusted(data)
    assert message.get(registry.LIFETIME) == 600
    assert type(message.raw) is bytes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        stun(BINDING_REQUEST)[:19],
        b"\x40" + stun(BINDING_REQUEST)[1:],
        b"\x80" + stun(BINDING_REQUEST)[1:],
        stun(BINDING_REQUEST).replace(COOKIE, bytes(4)),  # RFC 3489, without a cookie
        stun(BINDING_REQUEST) + b"\0",
        stun(BINDING_REQUEST) + LIFETIME,
        stun(ALLOCATE_REQUEST, LIFETIME)[:-4],
        bytes.fromhex("0001 0001") + COOKIE + TRANSACTION + b"\0",
        bytes.fromhex("0001 0002") + COOKIE + TRANSACTION + b"\0\0",
        bytes.fromhex("0001 ffff") + COOKIE + TRANSACTION,
    ],
    ids=[
        "empty", "cut-off header", "channel data", "RTP", "no cookie", "a byte too many",
        "an attribute too many", "an attribute cut off", "length 1", "length 2", "length lies",
    ],
)  # fmt: skip
def test_no_message(data):
    with pytest.raises(Malformed):
        parse_untrusted(data)


# Attributes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut_off",
    [
        bytes.fromhex("000d 0005 00000258"),  # one byte more than there is
        bytes.fromhex("000d ffff 00000258"),
        bytes.fromhex("000d 0004"),
    ],
)
def test_attribute_beyond_the_message(cut_off):
    with pytest.raises(Malformed, match="cut off"):
        parse_untrusted(stun(ALLOCATE_REQUEST, cut_off))


def test_padding_is_not_looked_at():
    """RFC 8489 §14: padding bits may be any value, and are ignored."""
    message = parse_untrusted(
        stun(ALLOCATE_REQUEST, attribute(0x0006, b"alice", padding=b"\xff"), LIFETIME)
    )
    assert message.get(registry.USERNAME) == "alice"
    assert message.get(registry.LIFETIME) == 600


def test_first_of_a_kind_counts():
    """RFC 8489 §14: further ones are ignored."""
    other = attribute(0x000D, bytes.fromhex("00000001"))
    assert parse_untrusted(stun(ALLOCATE_REQUEST, LIFETIME, other)).get(registry.LIFETIME) == 600


def test_every_peer_of_a_create_permission():
    """RFC 8656 §10.1: the one attribute that may come more than once."""
    other = attribute(0x0012, bytes.fromhex("0001 2112 2112a440"))
    message = parse_untrusted(stun(CREATE_PERMISSION_REQUEST, PEER, LIFETIME, other))
    assert message.get_all(registry.XOR_PEER_ADDRESS) == [
        Address("0.0.0.1", 0),
        Address("0.0.0.2", 0),
    ]


def test_absent_attribute():
    message = parse_untrusted(stun(ALLOCATE_REQUEST, LIFETIME))
    assert message.get(registry.USERNAME) is None
    assert message.get_all(registry.XOR_PEER_ADDRESS) == []
    assert message.has(registry.LIFETIME)
    assert not message.has(registry.USERNAME)


def test_bad_value_is_found_where_it_is_asked_for():
    message = parse_untrusted(stun(ALLOCATE_REQUEST, attribute(0x000D, b"\0\0\x02")))
    assert message.has(registry.LIFETIME)
    with pytest.raises(Malformed):
        message.get(registry.LIFETIME)
    with pytest.raises(Malformed):
        message.get_all(registry.LIFETIME)


def test_unknown_attributes():
    message = parse_untrusted(
        stun(
            ALLOCATE_REQUEST,
            attribute(0x7FFF),
            UNKNOWN_REQUIRED,
            LIFETIME,
            UNKNOWN_OPTIONAL,
            UNKNOWN_REQUIRED,
        )
    )
    assert message.unknown_required(frozenset({0x000D})) == (0x7FFF, 0x7FFE)
    assert message.unknown_required(frozenset()) == (0x7FFF, 0x7FFE, 0x000D)
    assert message.unknown_required(frozenset({0x7FFE, 0x7FFF, 0x000D})) == ()


# What comes behind an integrity attribute (RFC 8489 §14.5, §14.6) ---------------------------


def test_nothing_counts_behind_message_integrity():
    message = parse_untrusted(stun(ALLOCATE_REQUEST, SHA1, LIFETIME, UNKNOWN_REQUIRED, SHA1))
    assert message.integrity is Integrity.SHA1
    assert message.integrity_offset == 20
    assert not message.has(registry.LIFETIME)
    assert message.unknown_required(frozenset({0x0008})) == ()
    assert len(message.get_all(registry.MESSAGE_INTEGRITY)) == 1


def test_sha256_counts_behind_message_integrity():
    message = parse_untrusted(stun(ALLOCATE_REQUEST, SHA1, LIFETIME, SHA256, LIFETIME))
    assert message.integrity is Integrity.SHA256
    assert message.integrity_offset == 20 + len(SHA1) + len(LIFETIME)
    assert not message.has(registry.LIFETIME)


def test_message_integrity_does_not_count_behind_sha256():
    message = parse_untrusted(stun(ALLOCATE_REQUEST, SHA256, SHA1, LIFETIME))
    assert message.integrity is Integrity.SHA256
    assert message.integrity_offset == 20
    assert not message.has(registry.MESSAGE_INTEGRITY)
    assert not message.has(registry.LIFETIME)


@pytest.mark.parametrize("protection", [(), (SHA1,), (SHA256,), (SHA1, SHA256)])
def test_fingerprint_counts_behind_all(protection):
    good = with_fingerprint(stun(ALLOCATE_REQUEST, LIFETIME, *protection))
    assert parse_untrusted(good).has(registry.FINGERPRINT)
    with pytest.raises(Malformed, match="FINGERPRINT"):
        parse_untrusted(good[:-1] + bytes((good[-1] ^ 1,)))


# FINGERPRINT (RFC 8489 §14.7) ---------------------------------------------------------------


def test_every_bit_before_the_fingerprint_counts():
    good = with_fingerprint(stun(ALLOCATE_REQUEST, LIFETIME))
    head = range(len(good) - 8, len(good) - 4)  # with another number or length it would be none
    for position in set(range(8, len(good))) - set(head):
        bad = bytearray(good)
        bad[position] ^= 0x10
        with pytest.raises(Malformed):
            parse_untrusted(bad)


@pytest.mark.parametrize(
    "message",
    [
        stun(ALLOCATE_REQUEST, attribute(0x8028, bytes(4)), LIFETIME),
        stun(ALLOCATE_REQUEST, attribute(0x8028, bytes(8))),
        stun(ALLOCATE_REQUEST, attribute(0x8028)),
        with_fingerprint(with_fingerprint(stun(ALLOCATE_REQUEST))),
    ],
    ids=["not the last", "too long", "empty", "twice"],
)
def test_fingerprint_out_of_place(message):
    with pytest.raises(Malformed, match="not the last"):
        parse_untrusted(message)


# Writing ------------------------------------------------------------------------------------


def test_build():
    attributes = ((registry.USERNAME, "alice"), (registry.LIFETIME, 600))
    assert build(Method.ALLOCATE, MessageClass.REQUEST, TRANSACTION, attributes) == stun(
        ALLOCATE_REQUEST, attribute(0x0006, b"alice"), LIFETIME
    )


@pytest.mark.parametrize("fingerprint", [False, True])
@pytest.mark.parametrize("integrity", list(Integrity))
def test_build_protected(integrity, fingerprint):
    data = build(
        Method.ALLOCATE,
        MessageClass.SUCCESS,
        TRANSACTION,
        LIFETIME_600,
        key=KEY,
        integrity=integrity,
        fingerprint=fingerprint,
    )
    message = parse_untrusted(data)
    assert message.integrity is integrity
    assert verify(message, KEY) == (integrity is not Integrity.NONE)
    assert message.has(registry.FINGERPRINT) == fingerprint
    assert message.get(registry.LIFETIME) == 600


def test_build_is_never_unprotected_by_mistake():
    with pytest.raises(ValueError, match="needs a key"):
        build(
            Method.ALLOCATE,
            MessageClass.SUCCESS,
            TRANSACTION,
            LIFETIME_600,
            integrity=Integrity.SHA1,
        )


def test_build_beyond_the_length_field():
    build(Method.DATA, MessageClass.INDICATION, TRANSACTION, ((registry.DATA, bytes(65528)),))
    with pytest.raises(struct.error):
        build(Method.DATA, MessageClass.INDICATION, TRANSACTION, ((registry.DATA, bytes(65532)),))


def test_longest_message():
    longest = stun(SEND_INDICATION, attribute(0x0013, bytes(65528)))
    assert len(longest) == 20 + 65532
    assert parse_untrusted(longest).get(registry.DATA) == bytes(65528)
