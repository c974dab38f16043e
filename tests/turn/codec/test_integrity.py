"""MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256: what verifies and what does not."""

import contextlib
import hashlib
import hmac

import pytest

from tests.turn.codec.wire import ALLOCATE_REQUEST, attribute, stun
from turn.codec.errors import Malformed
from turn.codec.integrity import Integrity, digest, verify
from turn.codec.message import parse_untrusted

KEY = b"0123456789abcdef"
LIFETIME = attribute(0x000D, bytes.fromhex("00000258"))
USERNAME = attribute(0x0006, b"alice")


def protect(message: bytes, number: int, algorithm: str, size: int, key: bytes = KEY) -> bytes:
    """The message with an integrity attribute over what stands before it."""
    length = len(message) - 20 + 4 + size + -size % 4
    longer = message[:2] + length.to_bytes(2) + message[4:]
    mac = hmac.new(key, longer, getattr(hashlib, algorithm)).digest()
    return longer + attribute(number, mac[:size])


def with_sha1(message: bytes, key: bytes = KEY) -> bytes:
    return protect(message, 0x0008, "sha1", 20, key)


def with_sha256(message: bytes, size: int = 32, key: bytes = KEY) -> bytes:
    return protect(message, 0x001C, "sha256", size, key)


def longer_by(message: bytes, attributes: bytes) -> bytes:
    """The message with attributes behind it that its integrity value knows nothing of."""
    return (
        message[:2] + (len(message) - 20 + len(attributes)).to_bytes(2) + message[4:] + attributes
    )


PLAIN = stun(ALLOCATE_REQUEST, USERNAME, LIFETIME)


@pytest.mark.parametrize("protected", [with_sha1(PLAIN), with_sha256(PLAIN)])
def test_right_key(protected):
    message = parse_untrusted(protected)
    assert verify(message, KEY)
    assert not verify(message, KEY[:-1])
    assert not verify(message, b"")


@pytest.mark.parametrize("length", [0, 1, 16, 63, 64, 65, 200])
@pytest.mark.parametrize("integrity", [Integrity.SHA1, Integrity.SHA256])
def test_keys_of_any_length(integrity, length):
    key = bytes(range(length))
    for data in (b"", PLAIN, bytes(1000)):  # the same key again: one that was begun before
        assert digest(integrity, key, data) == hmac.digest(key, data, integrity.algorithm)


def test_no_integrity_attribute():
    assert not verify(parse_untrusted(PLAIN), KEY)


@pytest.mark.parametrize("protected", [with_sha1(PLAIN), with_sha256(PLAIN)])
def test_every_bit_counts(protected):
    for position in range(8, len(protected)):
        for bit in range(8):
            changed = bytearray(protected)
            changed[position] ^= 1 << bit
            with contextlib.suppress(Malformed):
                assert not verify(parse_untrusted(changed), KEY)


@pytest.mark.parametrize("protected", [with_sha1(PLAIN), with_sha256(PLAIN)])
def test_what_is_appended_changes_nothing(protected):
    """RFC 8489 §14.5: the length is taken as if the message ended with the attribute."""
    message = parse_untrusted(longer_by(protected, LIFETIME))
    assert verify(message, KEY)


def test_both_attributes():
    """The stronger one decides, and covers the weaker one."""
    assert verify(parse_untrusted(with_sha256(with_sha1(PLAIN))), KEY)
    assert verify(parse_untrusted(with_sha256(with_sha1(PLAIN, key=b"other"))), KEY)
    assert not verify(parse_untrusted(with_sha256(with_sha1(PLAIN), key=b"other")), KEY)


@pytest.mark.parametrize("size", [0, 1, 4, 12, 15, 16, 20, 24, 28, 31])
def test_cut_off_sha256(size):
    """RFC 8489 §14.6: all 32 bytes, unless the usage allows less. TURN does not."""
    message = parse_untrusted(with_sha256(PLAIN, size))
    assert message.integrity is Integrity.SHA256
    assert not verify(message, KEY)


@pytest.mark.parametrize("size", [0, 1, 16, 19])
def test_cut_off_sha1(size):
    assert not verify(parse_untrusted(protect(PLAIN, 0x0008, "sha1", size)), KEY)


@pytest.mark.parametrize(("number", "size"), [(0x0008, 20), (0x001C, 32)])
def test_longer_value(number, size):
    longer = attribute(number, bytes(size + 4))
    assert not verify(parse_untrusted(stun(ALLOCATE_REQUEST, longer)), KEY)


def test_digest():
    """RFC 2202 §3 and RFC 4231 §4.2, test case 1."""
    key, data = b"\x0b" * 20, b"Hi There"
    assert digest(Integrity.SHA1, key, data).hex() == "b617318655057264e28bc0b6fb378c8ef146be00"
    assert digest(Integrity.SHA256, key, data).hex() == (
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    )
