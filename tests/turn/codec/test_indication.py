"""Send and Data indications: the short way and the long way mean the same."""

import pytest

from tests.turn.codec.wire import (
    ALLOCATE_REQUEST,
    COOKIE,
    SEND_INDICATION,
    TRANSACTION,
    attribute,
    stun,
    with_fingerprint,
)
from turn.codec import indication, registry
from turn.codec.indication import data_indication_header, parse_send_indication
from turn.codec.message import parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

IPV4 = attribute(0x0012, bytes.fromhex("00 01 a147 e112a643"))
IPV6 = attribute(0x0012, bytes.fromhex("00 02 a147 0113a9fa 01020304 05060708 090a0b9c"))
PEER_IPV4 = Address("192.0.2.1", 32853)
PEER_IPV6 = Address("2001:db8::90", 32853)
DATA = attribute(0x0013, b"hello")
SOFTWARE = attribute(0x8022, b"a client")
DONT_FRAGMENT = attribute(0x001A)
UNKNOWN_REQUIRED = attribute(0x7FFE)


def parse(data: bytes) -> tuple[Address, bytes] | None:
    """What the indication says, as one value."""
    parsed = parse_send_indication(memoryview(data))
    return None if parsed is None else (parsed[0], bytes(parsed[1]))


@pytest.mark.parametrize("payload", [b"", b"1", b"1234", b"12345", bytes(1400), bytes(65480)])
@pytest.mark.parametrize(("peer", "address"), [(IPV4, PEER_IPV4), (IPV6, PEER_IPV6)])
def test_plain_shape(peer, address, payload, monkeypatch):
    monkeypatch.setattr(indication, "_parse_any_untrusted", None)  # the short way, or an error
    plain = stun(SEND_INDICATION, peer, attribute(0x0013, payload))
    assert parse(plain) == (address, payload)
    assert parse(with_fingerprint(plain)) == (address, payload)


@pytest.mark.parametrize(
    "attributes",
    [
        (DATA, IPV4),
        (IPV4, DATA, SOFTWARE),
        (IPV4, DATA, attribute(0x8022, b"four")),  # as long as FINGERPRINT
        (SOFTWARE, IPV4, DATA),
        (IPV4, DONT_FRAGMENT, DATA),
        (IPV4, DATA, DONT_FRAGMENT),
        (IPV4, DATA, IPV6),
        (IPV4, DATA, attribute(0x0013, b"another")),
        (IPV4, DATA, attribute(0x0008, bytes(20))),
        (IPV4, DATA, attribute(0x0008, bytes(20)), UNKNOWN_REQUIRED),
    ],
)
def test_other_shapes(attributes):
    data = stun(SEND_INDICATION, *attributes)
    assert parse(data) == (PEER_IPV4, b"hello")
    assert parse(with_fingerprint(data)) == (PEER_IPV4, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        stun(SEND_INDICATION),
        stun(SEND_INDICATION, IPV4),
        stun(SEND_INDICATION, DATA),
        stun(SEND_INDICATION, IPV4, DATA, UNKNOWN_REQUIRED),
        stun(SEND_INDICATION, attribute(0x0012, bytes(8)), DATA),
        stun(SEND_INDICATION, attribute(0x0012, bytes.fromhex("0002 a147 e112a643")), DATA),
        stun(SEND_INDICATION, attribute(0x0012, bytes(20)), DATA),
        stun(SEND_INDICATION, IPV4, DATA, attribute(0x8028, bytes(4))),
        stun(SEND_INDICATION, IPV6, DATA, attribute(0x8028, bytes(4))),
        stun(SEND_INDICATION, IPV4, bytes.fromhex("0013 0009 68656c6c6f000000")),
        stun(SEND_INDICATION, IPV4, DATA).replace(COOKIE, bytes(4)),
        stun(SEND_INDICATION, IPV4, DATA) + bytes(4),
        stun(SEND_INDICATION, IPV4, DATA)[:-4],
        stun(ALLOCATE_REQUEST, IPV4, DATA),
        stun(ALLOCATE_REQUEST, DATA, IPV4),
        stun(0x0017, IPV4, DATA),  # a Data indication is the server's to send
    ],
)
def test_no_send_indication(data):
    assert parse(data) is None


@pytest.mark.parametrize("peer", [IPV4, IPV6])
def test_cut_off_anywhere(peer):
    data = stun(SEND_INDICATION, peer, DATA)
    for end in range(len(data)):
        assert parse(data[:end]) is None


@pytest.mark.parametrize("address", [PEER_IPV4, PEER_IPV6, Address("::ffff:192.0.2.1", 1)])
@pytest.mark.parametrize("payload", [b"", b"12345", bytes(1400)])
def test_data_indication(address, payload):
    """Completed as the packet path does it: DATA's length, the padding, the message's length."""
    header = data_indication_header(TRANSACTION, address)
    padding = bytes(-len(payload) % 4)
    data = bytearray(header + payload + padding)
    data[len(header) - 2 : len(header)] = len(payload).to_bytes(2)
    data[2:4] = (len(data) - 20).to_bytes(2)
    message = parse_untrusted(data)
    assert (message.method, message.message_class) == (Method.DATA, MessageClass.INDICATION)
    assert message.transaction_id == TRANSACTION
    assert message.get(registry.XOR_PEER_ADDRESS) == address
    assert message.get(registry.DATA) == payload
