"""The wire as tables: every method and every attribute, one row each, grouped by RFC."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from turn.codec import values
from turn.codec.values import Shape, number, octets, text

T = TypeVar("T")


class Method(IntEnum):
    """Methods (RFC 8489 §18.1, RFC 8656 §17, RFC 6062 §6.1)."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009
    CONNECT = 0x00A
    CONNECTION_BIND = 0x00B
    CONNECTION_ATTEMPT = 0x00C


METHOD_NAMES: Mapping[int, str] = MappingProxyType({one: one.name.lower() for one in Method})
"""By number, as metrics have them; an enum's own lookup costs as much as reading an attribute."""


class MessageClass(IntEnum):
    """Classes (RFC 8489 §5)."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Attribute(Generic[T]):
    """An attribute: its number, its name, and how a value of type ``T`` is written and read."""

    __slots__ = ("decode", "encode", "name", "number")

    def __init__(self, number: int, name: str, shape: Shape[T]) -> None:
        self.number = number
        self.name = name
        self.encode = shape.encode
        """(value, transaction id) -> the value's bytes, without padding."""
        self.decode = shape.decode
        """(bytes, transaction id) -> the value. Raises ``Malformed``: they are none of this
        attribute's."""

    @property
    def comprehension_required(self) -> bool:
        """Whether a receiver that does not know it has to refuse the message (RFC 8489 §14)."""
        return self.number < 0x8000

    def __repr__(self) -> str:
        return self.name


Attributes = Iterable[tuple[Attribute[Any], Any]]
"""Attributes with their values, in wire order."""

# RFC 8489 §14: STUN -------------------------------------------------------------------------
MAPPED_ADDRESS = Attribute(0x0001, "MAPPED-ADDRESS", values.ADDRESS)
USERNAME = Attribute(0x0006, "USERNAME", text(508, 508))
MESSAGE_INTEGRITY = Attribute(0x0008, "MESSAGE-INTEGRITY", octets(20))
ERROR_CODE = Attribute(0x0009, "ERROR-CODE", values.ERROR)
UNKNOWN_ATTRIBUTES = Attribute(0x000A, "UNKNOWN-ATTRIBUTES", values.NUMBERS)
REALM = Attribute(0x0014, "REALM", text(509, 127))
NONCE = Attribute(0x0015, "NONCE", text(509, 127))
MESSAGE_INTEGRITY_SHA256 = Attribute(0x001C, "MESSAGE-INTEGRITY-SHA256", octets(16, 20, 24, 28, 32))
PASSWORD_ALGORITHM = Attribute(0x001D, "PASSWORD-ALGORITHM", values.ALGORITHM)
USERHASH = Attribute(0x001E, "USERHASH", octets(32))
XOR_MAPPED_ADDRESS = Attribute(0x0020, "XOR-MAPPED-ADDRESS", values.XOR_ADDRESS)
PASSWORD_ALGORITHMS = Attribute(0x8002, "PASSWORD-ALGORITHMS", values.ALGORITHMS)
ALTERNATE_DOMAIN = Attribute(0x8003, "ALTERNATE-DOMAIN", text(255, 255))
SOFTWARE = Attribute(0x8022, "SOFTWARE", text(509, 127))
ALTERNATE_SERVER = Attribute(0x8023, "ALTERNATE-SERVER", values.ADDRESS)
FINGERPRINT = Attribute(0x8028, "FINGERPRINT", number(4))

# RFC 8656 §18: TURN -------------------------------------------------------------------------
CHANNEL_NUMBER = Attribute(0x000C, "CHANNEL-NUMBER", number(2, padding=2))
LIFETIME = Attribute(0x000D, "LIFETIME", number(4))
XOR_PEER_ADDRESS = Attribute(0x0012, "XOR-PEER-ADDRESS", values.XOR_ADDRESS)
DATA = Attribute(0x0013, "DATA", octets())
XOR_RELAYED_ADDRESS = Attribute(0x0016, "XOR-RELAYED-ADDRESS", values.XOR_ADDRESS)
REQUESTED_ADDRESS_FAMILY = Attribute(0x0017, "REQUESTED-ADDRESS-FAMILY", number(1, padding=3))
EVEN_PORT = Attribute(0x0018, "EVEN-PORT", values.EVEN_PORT)
REQUESTED_TRANSPORT = Attribute(0x0019, "REQUESTED-TRANSPORT", number(1, padding=3))
DONT_FRAGMENT = Attribute(0x001A, "DONT-FRAGMENT", values.FLAG)
RESERVATION_TOKEN = Attribute(0x0022, "RESERVATION-TOKEN", octets(8))
ADDITIONAL_ADDRESS_FAMILY = Attribute(0x8000, "ADDITIONAL-ADDRESS-FAMILY", number(1, padding=3))
ADDRESS_ERROR_CODE = Attribute(0x8001, "ADDRESS-ERROR-CODE", values.ADDRESS_ERROR)
ICMP = Attribute(0x8004, "ICMP", values.ICMP)

# RFC 8445 §16.1: ICE ------------------------------------------------------------------------
PRIORITY = Attribute(0x0024, "PRIORITY", number(4))
USE_CANDIDATE = Attribute(0x0025, "USE-CANDIDATE", values.FLAG)
ICE_CONTROLLED = Attribute(0x8029, "ICE-CONTROLLED", number(8))
ICE_CONTROLLING = Attribute(0x802A, "ICE-CONTROLLING", number(8))

# RFC 5780 §7: NAT behaviour discovery -------------------------------------------------------
CHANGE_REQUEST = Attribute(0x0003, "CHANGE-REQUEST", number(4))
PADDING = Attribute(0x0026, "PADDING", octets())
RESPONSE_PORT = Attribute(0x0027, "RESPONSE-PORT", number(2, padding=2))
CACHE_TIMEOUT = Attribute(0x8027, "CACHE-TIMEOUT", number(4))
RESPONSE_ORIGIN = Attribute(0x802B, "RESPONSE-ORIGIN", values.ADDRESS)
OTHER_ADDRESS = Attribute(0x802C, "OTHER-ADDRESS", values.ADDRESS)

# RFC 6062 §6.2: TCP allocations -------------------------------------------------------------
CONNECTION_ID = Attribute(0x002A, "CONNECTION-ID", number(4))

# RFC 7635 §6: third-party authorization -----------------------------------------------------
ACCESS_TOKEN = Attribute(0x001B, "ACCESS-TOKEN", octets())
THIRD_PARTY_AUTHORIZATION = Attribute(0x802E, "THIRD-PARTY-AUTHORIZATION", text(509, 127))

# RFC 8016 §3.4: mobility --------------------------------------------------------------------
MOBILITY_TICKET = Attribute(0x8030, "MOBILITY-TICKET", octets())

ATTRIBUTES: Mapping[int, Attribute[Any]] = MappingProxyType(
    {row.number: row for row in tuple(vars().values()) if isinstance(row, Attribute)}
)
"""Every attribute above by its number."""
