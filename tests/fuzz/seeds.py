"""What the fuzzers start from: good packets of every kind, and some that were never ours."""

from collections.abc import Iterator
from typing import Any

from tests.vectors import stun
from turn.codec import channel, registry
from turn.codec.integrity import Integrity
from turn.codec.message import build
from turn.codec.registry import Attribute, MessageClass, Method
from turn.codec.values import Address, AddressError, Algorithm, Icmp

KEY = b"0123456789abcdef"
TRANSACTION = bytes(range(12))
PEERS = (
    Address("192.0.2.1", 49152),
    Address("2001:db8::1", 49152),
    Address("::ffff:127.0.0.1", 80),
    Address("0.0.0.0", 0),
)
CREDENTIALS: tuple[tuple[Attribute[str], str], ...] = (
    (registry.USERNAME, "1800000000:alice"),
    (registry.REALM, "icebroker"),
    (registry.NONCE, "AGpJ0gCkqg9aGBWRmcRJNRQl"),
)
ALLOCATE = ((registry.REQUESTED_TRANSPORT, 17), (registry.LIFETIME, 600))
REQUESTS: tuple[tuple[Method, tuple[tuple[Attribute[Any], Any], ...]], ...] = (
    (Method.BINDING, ()),
    (Method.BINDING, ((registry.CHANGE_REQUEST, 6), (registry.RESPONSE_PORT, 3479))),
    (
        Method.BINDING,
        (
            (registry.PRIORITY, 1),
            (registry.USE_CANDIDATE, True),
            (registry.ICE_CONTROLLING, 2**63),
        ),
    ),
    (Method.ALLOCATE, ALLOCATE),
    (Method.ALLOCATE, (*ALLOCATE, (registry.EVEN_PORT, True), (registry.DONT_FRAGMENT, True))),
    (Method.ALLOCATE, (*ALLOCATE, (registry.RESERVATION_TOKEN, b"12345678"))),
    (Method.ALLOCATE, (*ALLOCATE, (registry.REQUESTED_ADDRESS_FAMILY, 2))),
    (Method.ALLOCATE, (*ALLOCATE, (registry.ADDITIONAL_ADDRESS_FAMILY, 2))),
    (Method.ALLOCATE, (*ALLOCATE, (registry.MOBILITY_TICKET, b""))),
    (Method.REFRESH, ((registry.LIFETIME, 0),)),
    (Method.CREATE_PERMISSION, tuple((registry.XOR_PEER_ADDRESS, peer) for peer in PEERS)),
    (
        Method.CHANNEL_BIND,
        ((registry.CHANNEL_NUMBER, 0x4000), (registry.XOR_PEER_ADDRESS, PEERS[0])),
    ),
    (Method.CONNECT, ((registry.XOR_PEER_ADDRESS, PEERS[0]),)),
    (Method.CONNECTION_BIND, ((registry.CONNECTION_ID, 7),)),
)


def requests() -> Iterator[bytes]:
    """Each request bare, and with every kind of protection."""
    for method, attributes in REQUESTS:
        for fingerprint in (False, True):
            yield build(
                method, MessageClass.REQUEST, TRANSACTION, attributes, fingerprint=fingerprint
            )
            for integrity in (Integrity.SHA1, Integrity.SHA256):
                yield build(
                    method,
                    MessageClass.REQUEST,
                    TRANSACTION,
                    (*attributes, *CREDENTIALS),
                    key=KEY,
                    integrity=integrity,
                    fingerprint=fingerprint,
                )


def indications() -> Iterator[bytes]:
    """Send and Data indications in every order of their attributes."""
    for method in (Method.SEND, Method.DATA):
        for peer in PEERS:
            for payload in (b"", b"12345", bytes(300)):
                parts = ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, payload))
                for attributes in (parts, parts[::-1], (*parts, (registry.ICMP, Icmp(3, 4, 9)))):
                    for fingerprint in (False, True):
                        yield build(
                            method,
                            MessageClass.INDICATION,
                            TRANSACTION,
                            attributes,
                            fingerprint=fingerprint,
                        )


def replies() -> Iterator[bytes]:
    """What only a client reads."""
    error = (registry.ERROR_CODE, (401, "Unauthenticated"))
    algorithms = (registry.PASSWORD_ALGORITHMS, (Algorithm(2), Algorithm(1, b"a")))
    yield build(
        Method.ALLOCATE, MessageClass.ERROR, TRANSACTION, (error, *CREDENTIALS[1:], algorithms)
    )
    yield build(
        Method.ALLOCATE,
        MessageClass.ERROR,
        TRANSACTION,
        ((registry.ERROR_CODE, (420, "")), (registry.UNKNOWN_ATTRIBUTES, (1, 2, 3))),
    )
    yield build(
        Method.ALLOCATE,
        MessageClass.SUCCESS,
        TRANSACTION,
        (
            (registry.XOR_RELAYED_ADDRESS, PEERS[0]),
            (registry.XOR_MAPPED_ADDRESS, PEERS[1]),
            (registry.ADDRESS_ERROR_CODE, AddressError(2, 440, "no")),
            (registry.RESERVATION_TOKEN, b"12345678"),
        ),
    )


STUN: tuple[bytes, ...] = (*stun.ALL, *requests(), *indications(), *replies())
CHANNEL_DATA: tuple[bytes, ...] = tuple(
    channel.encode(number, payload, padded=padded)
    for number in (0x4000, 0x4FFF, 0x5000, 0x7FFF)
    for payload in (b"", b"1", b"12345", bytes(200))
    for padded in (False, True)
)
NEVER_OURS: tuple[bytes, ...] = (
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    bytes.fromhex("16 0301 00f4 01 0000f0 0303") + bytes(40),  # TLS client hello
    bytes.fromhex("16 feff 0000 0000 0000 0000 0030 01") + bytes(40),  # DTLS
    bytes.fromhex("80 60 0001 00000000 00000000"),  # RTP
    bytes.fromhex("0001 0000") + bytes(16),  # STUN of RFC 3489
)
ALL: tuple[bytes, ...] = (*STUN, *CHANNEL_DATA, *NEVER_OURS)
