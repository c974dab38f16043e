"""The RFCs' own sample messages: read, verified, and where they pad with zeros written again."""

import hashlib

import pytest

from tests.vectors import stun
from turn.codec import registry
from turn.codec.integrity import Integrity, verify
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Algorithm

SHORT_TERM_KEY = stun.PASSWORD.encode()
LONG_TERM_TEXT = f"{stun.MATRIX}:{stun.MATRIX_REALM}:{stun.MATRIX_PASSWORD}".encode()
MD5_KEY = hashlib.md5(LONG_TERM_TEXT).digest()
SHA256_KEY = hashlib.sha256(LONG_TERM_TEXT).digest()
USERHASH = hashlib.sha256(f"{stun.MATRIX}:{stun.MATRIX_REALM}".encode()).digest()


def test_request():
    message = parse_untrusted(stun.REQUEST)
    assert (message.method, message.message_class) == (Method.BINDING, MessageClass.REQUEST)
    assert message.transaction_id == bytes.fromhex("b7e7a701bc34d686fa87dfae")
    assert message.get(registry.SOFTWARE) == "STUN test client"
    assert message.get(registry.PRIORITY) == 0x6E0001FF
    assert message.get(registry.ICE_CONTROLLED) == 0x932FF9B151263B36
    assert message.get(registry.USERNAME) == "evtj:h6vY"
    assert message.get(registry.FINGERPRINT) == 0xE57A3BCF
    assert message.integrity is Integrity.SHA1
    assert verify(message, SHORT_TERM_KEY)


@pytest.mark.parametrize(
    ("sample", "mapped"),
    [
        (stun.RESPONSE_IPV4, Address("192.0.2.1", 32853)),
        (stun.RESPONSE_IPV6, Address("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
    ids=["IPv4", "IPv6"],
)
def test_response(sample, mapped):
    message = parse_untrusted(sample)
    assert (message.method, message.message_class) == (Method.BINDING, MessageClass.SUCCESS)
    assert message.get(registry.SOFTWARE) == "test vector"
    assert message.get(registry.XOR_MAPPED_ADDRESS) == mapped
    assert verify(message, SHORT_TERM_KEY)


def test_long_term_request():
    message = parse_untrusted(stun.LONG_TERM)
    assert message.get(registry.USERNAME) == stun.MATRIX
    assert message.get(registry.NONCE) == stun.LONG_TERM_NONCE
    assert message.get(registry.REALM) == stun.MATRIX_REALM
    assert message.integrity is Integrity.SHA1
    assert verify(message, MD5_KEY)
    assert (
        build(
            Method.BINDING,
            MessageClass.REQUEST,
            message.transaction_id,
            (
                (registry.USERNAME, stun.MATRIX),
                (registry.NONCE, stun.LONG_TERM_NONCE),
                (registry.REALM, stun.MATRIX_REALM),
            ),
            key=MD5_KEY,
            integrity=Integrity.SHA1,
        )
        == stun.LONG_TERM
    )


def test_long_term_request_with_sha256():
    message = parse_untrusted(stun.LONG_TERM_SHA256)
    assert message.get(registry.USERHASH) == USERHASH
    assert message.get(registry.NONCE) == stun.LONG_TERM_SHA256_NONCE
    assert message.get(registry.PASSWORD_ALGORITHM) == Algorithm(2)
    assert message.integrity is Integrity.SHA256
    assert verify(message, SHA256_KEY)
    assert (
        build(
            Method.BINDING,
            MessageClass.REQUEST,
            message.transaction_id,
            (
                (registry.USERHASH, USERHASH),
                (registry.NONCE, stun.LONG_TERM_SHA256_NONCE),
                (registry.REALM, stun.MATRIX_REALM),
                (registry.PASSWORD_ALGORITHM, Algorithm(2)),
            ),
            key=SHA256_KEY,
            integrity=Integrity.SHA256,
        )
        == stun.LONG_TERM_SHA256
    )


@pytest.mark.parametrize("sample", stun.ALL)
def test_another_key_does_not_verify(sample):
    assert not verify(parse_untrusted(sample), b"another key")
