"""The shapes of attribute values: bytes to value and back, one pair of functions a shape.

A decoder is given the value's bytes and the message's transaction id (XOR-ed addresses need it),
and raises ``Malformed``, nothing else.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, NamedTuple, TypeVar

from turn.codec.errors import Malformed

T = TypeVar("T")

MAGIC_COOKIE = 0x2112A442
COOKIE_BYTES = MAGIC_COOKIE.to_bytes(4)
COOKIE_PORT = MAGIC_COOKIE >> 16


class Address(NamedTuple):
    """A transport address; ``host`` is canonical text, as the socket module prints it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Family(IntEnum):
    """Address families on the wire (RFC 8489 §14.1)."""

    IPV4 = 1
    IPV6 = 2


IPV4, IPV6 = Family
"""Here, because an enum's own lookup costs three times as much as a name's."""
FAMILY_NAMES = {family: family.name.lower() for family in Family}
"""As metrics have them."""


class Shape(NamedTuple, Generic[T]):
    """How a value is written and read: ``(value, transaction id) -> bytes`` and back."""

    encode: Callable[[T, bytes], bytes]
    decode: Callable[[bytes, bytes], T]


def family_of(address: Address) -> Family:
    """The family of an address."""
    return IPV6 if ":" in address.host else IPV4


# Addresses (RFC 8489 §14.1, §14.2): zero, family, port, address. --------------------------
ADDRESS_HEAD = struct.Struct("!BBH")
ADDRESS_IPV4 = struct.Struct("!BBHI")


@lru_cache(maxsize=1024)  # every Send indication to an IPv6 peer names it; 3 µs, or 0.1
def ipv6_text(packed: bytes) -> str:
    """Canonical text of an IPv6 address, an embedded IPv4 address as ``inet_ntop`` writes it."""
    address = IPv6Address(packed)
    number = int(address)
    # glibc writes ::ffff:1.2.3.4 and, for all but the smallest, ::1.2.3.4.
    if number >> 32 == 0xFFFF:
        return f"::ffff:{IPv4Address(number & 0xFFFFFFFF)}"
    if number >> 32 == 0 and number >> 16:
        return f"::{IPv4Address(number)}"
    return str(address)


def ipv4_text(number: int) -> str:
    """Dotted text of an IPv4 address."""
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def encode_address(address: Address, _: bytes = b"") -> bytes:
    """MAPPED-ADDRESS and its like."""
    packed = pack_host(address.host)
    family = IPV4 if len(packed) == 4 else IPV6
    return ADDRESS_HEAD.pack(0, family, address.port) + packed


def decode_address(value: bytes, _: bytes = b"") -> Address:
    """MAPPED-ADDRESS and its like."""
    if len(value) == 8 and value[1] == IPV4:
        _zero, _family, port, host = ADDRESS_IPV4.unpack(value)
        return Address(ipv4_text(host), port)
    if len(value) == 20 and value[1] == IPV6:
        return Address(ipv6_text(value[4:]), int.from_bytes(value[2:4]))
    raise Malformed("not an address")


def encode_xor_address(address: Address, transaction_id: bytes) -> bytes:
    """XOR-MAPPED-ADDRESS and its like: the port and the address are XOR-ed."""
    host, port = address
    if ":" not in host:
        return ADDRESS_IPV4.pack(0, IPV4, port ^ COOKIE_PORT, _masked_ipv4(host))
    mask = int.from_bytes(COOKIE_BYTES + transaction_id)
    masked = int.from_bytes(pack_host(host)) ^ mask
    return ADDRESS_HEAD.pack(0, IPV6, port ^ COOKIE_PORT) + masked.to_bytes(16)


@lru_cache(maxsize=1024)  # as of ``pack_host``
def _masked_ipv4(host: str) -> int:
    return int.from_bytes(pack_host(host)) ^ MAGIC_COOKIE


@lru_cache(maxsize=1024)  # every Send indication to an IPv4 peer names it; 1 µs, or 0.1
def _decode_xor_ipv4(value: bytes) -> Address:
    _zero, family, port, host = ADDRESS_IPV4.unpack(value)
    if family != IPV4:
        raise Malformed("not an address")
    return Address(ipv4_text(host ^ MAGIC_COOKIE), port ^ COOKIE_PORT)


def decode_xor_address(value: bytes, transaction_id: bytes) -> Address:
    """XOR-MAPPED-ADDRESS and its like."""
    if len(value) == 8:
        return _decode_xor_ipv4(value)
    if len(value) == 20 and value[1] == IPV6:
        mask = int.from_bytes(COOKIE_BYTES + transaction_id)
        host = (int.from_bytes(value[4:]) ^ mask).to_bytes(16)
        return Address(ipv6_text(host), int.from_bytes(value[2:4]) ^ COOKIE_PORT)
    raise Malformed("not an address")


@lru_cache(maxsize=1024)  # the relay's own addresses and those of its clients: 1 µs, or 0.1
def pack_host(host: str) -> bytes:
    """The 4 or 16 bytes of an address. :raises ValueError: it is none."""
    if ":" in host:
        return IPv6Address(host).packed
    packed = bytes(map(int, host.split(".")))  # a fifth of what IPv4Address takes
    if len(packed) != 4:
        raise ValueError(f"no address: {host}")
    return packed


ADDRESS = Shape(encode_address, decode_address)
XOR_ADDRESS = Shape(encode_xor_address, decode_xor_address)


# Numbers -----------------------------------------------------------------------------------
def number(size: int, padding: int = 0) -> Shape[int]:
    """An unsigned number of ``size`` bytes, ``padding`` reserved bytes behind it."""
    tail, whole = bytes(padding), size + padding

    def encode(value: int, _: bytes) -> bytes:
        return value.to_bytes(size) + tail

    def decode(value: bytes, _: bytes) -> int:
        if len(value) != whole:
            raise Malformed(f"a number of {len(value)} bytes, not {whole}")
        return int.from_bytes(value) >> 8 * padding

    return Shape(encode, decode)


# Text and bytes ----------------------------------------------------------------------------
MOST_TEXT_BYTES = 763
"""What a receiver has to bear of USERNAME, REALM, NONCE, SOFTWARE and reason phrases, whatever the
shorter limit that their sender has to keep (RFC 8489 §14)."""


def text(most_bytes: int, most_characters: int) -> Shape[str]:
    """UTF-8, written within both limits and read within ``MOST_TEXT_BYTES``."""

    def encode(value: str, _: bytes) -> bytes:
        encoded = value.encode()
        if len(encoded) > most_bytes or len(value) > most_characters:
            raise ValueError(f"longer than {most_characters} characters or {most_bytes} bytes")
        return encoded

    def decode(value: bytes, _: bytes) -> str:
        if len(value) > MOST_TEXT_BYTES:
            raise Malformed(f"text of {len(value)} bytes")
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError:
            raise Malformed("text that is not UTF-8") from None

    return Shape(encode, decode)


def octets(*lengths: int) -> Shape[bytes]:
    """Bytes of one of these lengths, or of any length where none is given."""

    def encode(value: bytes, _: bytes) -> bytes:
        return bytes(value)

    def decode(value: bytes, _: bytes) -> bytes:
        if lengths and len(value) not in lengths:
            raise Malformed(f"a value of {len(value)} bytes")
        return bytes(value)

    return Shape(encode, decode)


# A flag: present or not; its value is empty.
def _encode_flag(_value: bool, _: bytes) -> bytes:
    return b""


def _decode_flag(value: bytes, _: bytes) -> bool:
    if value:
        raise Malformed("a flag with a value")
    return True


FLAG = Shape(_encode_flag, _decode_flag)


# EVEN-PORT (RFC 8656 §18.6): one bit, "reserve the next port too"; seven reserved. ---------
def _encode_even_port(reserve: bool, _: bytes) -> bytes:
    return b"\x80" if reserve else b"\x00"


def _decode_even_port(value: bytes, _: bytes) -> bool:
    if len(value) != 1:
        raise Malformed("EVEN-PORT is one byte")
    return bool(value[0] & 0x80)


EVEN_PORT = Shape(_encode_even_port, _decode_even_port)


# Error codes (RFC 8489 §14.8): 21 bits reserved, class 3 bits, number 8 bits, reason. ------
ERROR_HEAD = struct.Struct("!HBB")

Failure = tuple[int, str]
"""An error code and its reason phrase."""


def _encode_error(value: Failure, _: bytes) -> bytes:
    return _written_error(value)


@lru_cache(maxsize=64)  # they are few
def _written_error(value: Failure) -> bytes:
    code, reason = value
    return ERROR_HEAD.pack(0, code // 100, code % 100) + reason.encode()


def _decode_error(value: bytes, _: bytes) -> Failure:
    if not 4 <= len(value) <= 4 + MOST_TEXT_BYTES:
        raise Malformed("an error code of a wrong length")
    _zero, hundreds, rest = ERROR_HEAD.unpack_from(value)
    hundreds &= 7
    if not 3 <= hundreds <= 6 or rest > 99:
        raise Malformed("an error code that is not within 300 to 699")
    try:
        return hundreds * 100 + rest, str(value[4:], "utf-8")
    except UnicodeDecodeError:
        raise Malformed("a reason phrase that is not UTF-8") from None


ERROR = Shape(_encode_error, _decode_error)


# UNKNOWN-ATTRIBUTES (RFC 8489 §14.13): 16-bit numbers. -------------------------------------
def _encode_numbers(value: tuple[int, ...], _: bytes) -> bytes:
    return struct.pack(f"!{len(value)}H", *value)


def _decode_numbers(value: bytes, _: bytes) -> tuple[int, ...]:
    if len(value) % 2:
        raise Malformed("UNKNOWN-ATTRIBUTES of an odd length")
    return struct.unpack(f"!{len(value) // 2}H", value)


NUMBERS = Shape(_encode_numbers, _decode_numbers)


# Password algorithms (RFC 8489 §14.11, §14.12): number, length of parameters, parameters. --
ALGORITHM_HEAD = struct.Struct("!HH")


class Algorithm(NamedTuple):
    """A password algorithm and its parameters (none is defined to have any)."""

    number: int
    parameters: bytes = b""


def _encode_algorithms(value: tuple[Algorithm, ...], _: bytes) -> bytes:
    return _written_algorithms(value)


@lru_cache(maxsize=16)  # every challenge has the same
def _written_algorithms(value: tuple[Algorithm, ...]) -> bytes:
    encoded = b""
    for number, parameters in value:
        size = len(parameters)
        encoded += ALGORITHM_HEAD.pack(number, size) + parameters + bytes(-size % 4)
    return encoded


def _decode_algorithms(value: bytes, _: bytes) -> tuple[Algorithm, ...]:
    found, offset = [], 0
    while offset < len(value):
        if offset + 4 > len(value):
            raise Malformed("a password algorithm that is cut off")
        algorithm, length = ALGORITHM_HEAD.unpack_from(value, offset)
        end = offset + 4 + length
        if end > len(value):
            raise Malformed("a password algorithm that is cut off")
        found.append(Algorithm(algorithm, bytes(value[offset + 4 : end])))
        offset = end + -length % 4
    return tuple(found)


def _encode_algorithm(value: Algorithm, transaction_id: bytes) -> bytes:
    return _encode_algorithms((value,), transaction_id)


def _decode_algorithm(value: bytes, transaction_id: bytes) -> Algorithm:
    found = _decode_algorithms(value, transaction_id)
    if len(found) != 1:
        raise Malformed("PASSWORD-ALGORITHM names one algorithm")
    return found[0]


ALGORITHMS = Shape(_encode_algorithms, _decode_algorithms)
ALGORITHM = Shape(_encode_algorithm, _decode_algorithm)


# ADDRESS-ERROR-CODE (RFC 8656 §18.12): family, reserved, class, number, reason. ------------
class AddressError(NamedTuple):
    """Why an address of one family was not allocated."""

    family: int
    code: int
    reason: str


def _encode_address_error(value: AddressError, transaction_id: bytes) -> bytes:
    encoded = _encode_error((value.code, value.reason), transaction_id)
    return bytes((value.family,)) + encoded[1:]


def _decode_address_error(value: bytes, transaction_id: bytes) -> AddressError:
    code, reason = _decode_error(value, transaction_id)
    return AddressError(value[0], code, reason)


ADDRESS_ERROR = Shape(_encode_address_error, _decode_address_error)


# ICMP (RFC 8656 §18.13): reserved, type 7 bits, code 9 bits, error data. -------------------
ICMP_SHAPE = struct.Struct("!HHI")


class Icmp(NamedTuple):
    """An ICMP message that a relayed packet drew."""

    type: int
    code: int
    data: int


def _encode_icmp(value: Icmp, _: bytes) -> bytes:
    return ICMP_SHAPE.pack(0, value.type << 9 | value.code, value.data)


def _decode_icmp(value: bytes, _: bytes) -> Icmp:
    if len(value) != 8:
        raise Malformed("ICMP is eight bytes")
    _zero, both, data = ICMP_SHAPE.unpack(value)
    return Icmp(both >> 9, both & 0x1FF, data)


ICMP = Shape(_encode_icmp, _decode_icmp)
