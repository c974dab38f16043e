"""Each attribute's value on the wire, and what is no such value."""

import socket
from typing import Any

import pytest

from tests.turn.codec.wire import TRANSACTION
from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.registry import Attribute
from turn.codec.values import (
    Address,
    AddressError,
    Algorithm,
    Family,
    Icmp,
    family_of,
    ipv6_text,
)

# XOR-ed with the cookie and TRANSACTION, 01 02 … 0c.
XOR_IPV6 = "0113a9fa 01020304 05060708 090a0b9c"

WIRE: list[tuple[Attribute[Any], Any, str]] = [
    # RFC 8489 §14
    (registry.MAPPED_ADDRESS, Address("192.0.2.1", 3478), "00 01 0d96 c0000201"),
    (registry.MAPPED_ADDRESS, Address("::1", 1), "00 02 0001" + "00" * 15 + "01"),
    (registry.XOR_MAPPED_ADDRESS, Address("192.0.2.1", 32853), "00 01 a147 e112a643"),
    (registry.XOR_MAPPED_ADDRESS, Address("2001:db8::90", 32853), "00 02 a147" + XOR_IPV6),
    (registry.USERNAME, "1800000000:alice", b"1800000000:alice".hex()),
    (registry.USERHASH, bytes(range(32)), bytes(range(32)).hex()),
    (registry.MESSAGE_INTEGRITY, bytes(20), "00" * 20),
    (registry.MESSAGE_INTEGRITY_SHA256, bytes(32), "00" * 32),
    (registry.MESSAGE_INTEGRITY_SHA256, bytes(16), "00" * 16),
    (registry.FINGERPRINT, 0xE57A3BCF, "e57a3bcf"),
    (registry.ERROR_CODE, (438, "Stale Nonce"), "0000 04 26" + b"Stale Nonce".hex()),
    (registry.ERROR_CODE, (300, ""), "0000 03 00"),
    (registry.ERROR_CODE, (699, ""), "0000 06 63"),
    (registry.REALM, "example.org", b"example.org".hex()),
    (registry.NONCE, "n", "6e"),
    (registry.SOFTWARE, "", ""),
    (registry.SOFTWARE, "Größe", "4772c3b6c39f65"),
    (registry.PASSWORD_ALGORITHM, Algorithm(2), "0002 0000"),
    (registry.PASSWORD_ALGORITHM, Algorithm(9, b"abcde"), "0009 0005 6162636465 000000"),
    (registry.PASSWORD_ALGORITHMS, (Algorithm(2), Algorithm(1)), "0002 0000 0001 0000"),
    (
        registry.PASSWORD_ALGORITHMS,
        (Algorithm(9, b"a"), Algorithm(1)),
        "0009 0001 61 000000 0001 0000",
    ),
    (registry.PASSWORD_ALGORITHMS, (), ""),
    (registry.UNKNOWN_ATTRIBUTES, (0x7FFE, 0x0001), "7ffe 0001"),
    (registry.ALTERNATE_SERVER, Address("192.0.2.1", 3478), "00 01 0d96 c0000201"),
    (registry.ALTERNATE_DOMAIN, "example.org", b"example.org".hex()),
    # RFC 8656 §18
    (registry.CHANNEL_NUMBER, 0x4001, "4001 0000"),
    (registry.LIFETIME, 3600, "00000e10"),
    (registry.XOR_PEER_ADDRESS, Address("192.0.2.1", 32853), "00 01 a147 e112a643"),
    (registry.DATA, b"", ""),
    (registry.DATA, b"\0\xff", "00ff"),
    (registry.XOR_RELAYED_ADDRESS, Address("192.0.2.1", 32853), "00 01 a147 e112a643"),
    (registry.REQUESTED_ADDRESS_FAMILY, 2, "02 000000"),
    (registry.EVEN_PORT, True, "80"),
    (registry.EVEN_PORT, False, "00"),
    (registry.REQUESTED_TRANSPORT, 17, "11 000000"),
    (registry.DONT_FRAGMENT, True, ""),
    (registry.RESERVATION_TOKEN, b"12345678", "3132333435363738"),
    (registry.ADDITIONAL_ADDRESS_FAMILY, 2, "02 000000"),
    (registry.ADDRESS_ERROR_CODE, AddressError(2, 440, "no"), "02 00 04 28 6e6f"),
    (registry.ICMP, Icmp(3, 4, 1280), "0000 0604 00000500"),
    (registry.ICMP, Icmp(127, 511, 0), "0000 ffff 00000000"),
    # RFC 8445 §16.1
    (registry.PRIORITY, 0x6E0001FF, "6e0001ff"),
    (registry.USE_CANDIDATE, True, ""),
    (registry.ICE_CONTROLLED, 0x932FF9B151263B36, "932ff9b1 51263b36"),
    (registry.ICE_CONTROLLING, 1, "00000000 00000001"),
    # RFC 5780 §7
    (registry.CHANGE_REQUEST, 6, "00000006"),
    (registry.PADDING, bytes(5), "0000000000"),
    (registry.RESPONSE_PORT, 3479, "0d97 0000"),
    (registry.CACHE_TIMEOUT, 30, "0000001e"),
    (registry.RESPONSE_ORIGIN, Address("192.0.2.1", 3478), "00 01 0d96 c0000201"),
    (registry.OTHER_ADDRESS, Address("192.0.2.1", 3478), "00 01 0d96 c0000201"),
    # RFC 6062, 7635, 8016
    (registry.CONNECTION_ID, 0x01020304, "01020304"),
    (registry.ACCESS_TOKEN, b"token", b"token".hex()),
    (registry.THIRD_PARTY_AUTHORIZATION, "example.org", b"example.org".hex()),
    (registry.MOBILITY_TICKET, b"ticket", b"ticket".hex()),
]


@pytest.mark.parametrize(("attribute", "value", "wire"), WIRE)
def test_value(attribute: Attribute[object], value, wire):
    raw = bytes.fromhex(wire)
    assert attribute.encode(value, TRANSACTION) == raw
    decoded = attribute.decode(raw, TRANSACTION)
    assert decoded == value
    assert type(decoded) is type(value)


def test_every_attribute_is_in_the_table_above():
    assert {attribute.number for attribute, _, _ in WIRE} == set(registry.ATTRIBUTES)


ADDRESSES = [
    "",
    "00 01 0d96",
    "00 01 0d96 c00002",
    "00 01 0d96 c0000201 00",
    "00 02 0d96 c0000201",
    "00 01 0d96" + "00" * 16,
    "00 02 0d96" + "00" * 15,
    "00 02 0d96" + "00" * 17,
    "00 00 0d96 c0000201",
    "00 03 0d96 c0000201",
    "01",
]
MALFORMED: list[tuple[Attribute[Any], str]] = [
    *((registry.MAPPED_ADDRESS, wire) for wire in ADDRESSES),
    *((registry.XOR_PEER_ADDRESS, wire) for wire in ADDRESSES),
    (registry.USERNAME, "61" * 764),
    (registry.REALM, "61" * 764),
    (registry.NONCE, "ff"),  # not UTF-8
    (registry.SOFTWARE, "eda080"),  # a surrogate
    (registry.USERHASH, "00" * 31),
    (registry.MESSAGE_INTEGRITY, "00" * 16),
    (registry.MESSAGE_INTEGRITY_SHA256, "00" * 12),
    (registry.MESSAGE_INTEGRITY_SHA256, "00" * 18),
    (registry.MESSAGE_INTEGRITY_SHA256, "00" * 36),
    (registry.ERROR_CODE, "000004"),
    (registry.ERROR_CODE, "00000200"),  # 200
    (registry.ERROR_CODE, "00000700"),  # 700
    (registry.ERROR_CODE, "00000464"),  # 4 and 100
    (registry.ERROR_CODE, "00000400" + "61" * 764),
    (registry.ERROR_CODE, "00000400 ff"),
    (registry.UNKNOWN_ATTRIBUTES, "7ffe00"),
    (registry.PASSWORD_ALGORITHM, ""),
    (registry.PASSWORD_ALGORITHM, "0002"),
    (registry.PASSWORD_ALGORITHM, "0002 0000 0001 0000"),
    (registry.PASSWORD_ALGORITHM, "0002 0001"),
    (registry.PASSWORD_ALGORITHMS, "0002 0000 0001"),
    (registry.PASSWORD_ALGORITHMS, "0002 ffff 00000000"),
    (registry.CHANNEL_NUMBER, "4001"),
    (registry.LIFETIME, "000e10"),
    (registry.LIFETIME, "0000000e10"),
    (registry.REQUESTED_TRANSPORT, "11"),
    (registry.EVEN_PORT, ""),
    (registry.EVEN_PORT, "80000000"),
    (registry.DONT_FRAGMENT, "00"),
    (registry.USE_CANDIDATE, "01"),
    (registry.RESERVATION_TOKEN, "00" * 7),
    (registry.RESERVATION_TOKEN, "00" * 9),
    (registry.ADDRESS_ERROR_CODE, ""),
    (registry.ADDRESS_ERROR_CODE, "02000100"),
    (registry.ICMP, "00" * 4),
    (registry.ICE_CONTROLLED, "00" * 4),
    (registry.CONNECTION_ID, "00" * 3),
]


@pytest.mark.parametrize(("attribute", "wire"), MALFORMED)
def test_malformed_value(attribute: Attribute[object], wire):
    with pytest.raises(Malformed):
        attribute.decode(bytes.fromhex(wire), TRANSACTION)


@pytest.mark.parametrize(
    ("attribute", "wire", "value"),
    [
        (registry.MAPPED_ADDRESS, "ff 01 0d96 c0000201", Address("192.0.2.1", 3478)),
        (registry.ERROR_CODE, "ffff fc 00", (400, "")),
        (registry.CHANNEL_NUMBER, "4001 ffff", 0x4001),
        (registry.REQUESTED_TRANSPORT, "11 ffffff", 17),
        (registry.REQUESTED_ADDRESS_FAMILY, "02 ffffff", 2),
        (registry.ADDITIONAL_ADDRESS_FAMILY, "02 ffffff", 2),
        (registry.ADDRESS_ERROR_CODE, "02 fffc 28 6e6f", AddressError(2, 440, "no")),
        (registry.EVEN_PORT, "ff", True),
        (registry.EVEN_PORT, "7f", False),
        (registry.ICMP, "ffff 0604 00000500", Icmp(3, 4, 1280)),
    ],
)
def test_reserved_bits_are_ignored(attribute: Attribute[object], wire, value):
    assert attribute.decode(bytes.fromhex(wire), TRANSACTION) == value


# Text (RFC 8489 §14.3, §14.9, §14.10, §14.14): what may be sent, and what has to be borne. ---


@pytest.mark.parametrize(
    ("attribute", "longest"),
    [(registry.USERNAME, "a" * 508), (registry.REALM, "a" * 127), (registry.NONCE, "ß" * 127),
     (registry.SOFTWARE, "\N{GRINNING FACE}" * 127), (registry.ALTERNATE_DOMAIN, "a" * 255)],
)  # fmt: skip
def test_longest_text(attribute: Attribute[str], longest):
    assert attribute.encode(longest, TRANSACTION) == longest.encode()
    with pytest.raises(ValueError, match="longer than"):
        attribute.encode(longest + "a", TRANSACTION)


@pytest.mark.parametrize(
    "attribute", [registry.USERNAME, registry.REALM, registry.NONCE, registry.SOFTWARE]
)
def test_longest_text_of_others(attribute: Attribute[str]):
    assert attribute.decode(b"a" * 763, TRANSACTION) == "a" * 763


# Addresses ----------------------------------------------------------------------------------


def test_family():
    assert family_of(Address("192.0.2.1", 1)) is Family.IPV4
    assert family_of(Address("::ffff:192.0.2.1", 1)) is Family.IPV6


@pytest.mark.parametrize(
    "host",
    [
        "::", "::1", "::2:0", "::0.1.0.0", "::255.255.255.255", "::ffff:0.0.0.0",
        "::ffff:192.0.2.1", "::fffe:c000:201", "::ffff:0:c000:201", "64:ff9b::c000:201", "1::",
        "2001:db8::1:0:0:1", "2001:db8:0:1:1:1:1:1", "0:1:2:3:4:5:6:7", "fe80::1", "ff02::1",
        "1:0:0:2::3", "1:2:3:4:5:6:7:0",
    ],
)  # fmt: skip
def test_ipv6_text_is_that_of_the_sockets(host):
    packed = socket.inet_pton(socket.AF_INET6, host)
    assert ipv6_text(packed) == socket.inet_ntop(socket.AF_INET6, packed)


def test_mapped_address_stays_one():
    """An IPv4 address inside an IPv6 one is judged by policy, so it must not get lost here."""
    address = Address("::ffff:127.0.0.1", 80)
    raw = registry.XOR_PEER_ADDRESS.encode(address, TRANSACTION)
    assert raw[1] == Family.IPV6
    assert len(raw) == 20
    assert registry.XOR_PEER_ADDRESS.decode(raw, TRANSACTION) == address


@pytest.mark.parametrize("host", ["", "localhost", "1.2.3", "1.2.3.256", "::g"])
def test_no_address(host):
    with pytest.raises(ValueError, match=r"."):
        registry.XOR_PEER_ADDRESS.encode(Address(host, 1), TRANSACTION)
