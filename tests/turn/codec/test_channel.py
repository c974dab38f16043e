"""ChannelData."""

import pytest

from tests.turn.codec.wire import channel_data
from turn.codec.channel import encode, is_channel_number, parse_untrusted
from turn.codec.errors import Malformed


@pytest.mark.parametrize(
    ("number", "good"),
    [(0, False), (0x3FFF, False), (0x4000, True), (0x4FFF, True), (0x5000, True), (0x7FFF, True),
     (0x8000, False), (0xFFFF, False)],
)  # fmt: skip
def test_channel_number(number, good):
    assert is_channel_number(number) is good


@pytest.mark.parametrize("behind", [b"", b"\0", b"\0\0\0", b"trailing bytes"])
@pytest.mark.parametrize("payload", [b"", b"1", b"12345", bytes(65535)])
def test_payload(payload, behind):
    """RFC 8656 §12.5: over UDP padding may be there or not."""
    data = memoryview(channel_data(0x4001, payload) + behind)
    channel, found = parse_untrusted(data)
    assert (channel, bytes(found)) == (0x4001, payload)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x40\x01\x00",
        bytes.fromhex("4001 0001"),
        bytes.fromhex("4001 0005 31323334"),
        bytes.fromhex("4001 ffff 31323334"),
        bytes.fromhex("3fff 0000"),
        bytes.fromhex("8000 0000"),
    ],
)
def test_malformed(data):
    with pytest.raises(Malformed):
        parse_untrusted(memoryview(data))


@pytest.mark.parametrize(
    ("payload", "padded", "wire"),
    [
        (b"", True, "4001 0000"),
        (b"12345", False, "4001 0005 3132333435"),
        (b"12345", True, "4001 0005 3132333435 000000"),
        (b"1234", True, "4001 0004 31323334"),
    ],
)
def test_encode(payload, padded, wire):
    assert encode(0x4001, payload, padded=padded) == bytes.fromhex(wire)
