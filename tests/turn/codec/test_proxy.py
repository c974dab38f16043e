"""PROXY protocol v2: what a header says, and that nothing else is taken for one."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turn.codec.errors import Malformed
from turn.codec.proxy import MOST_BYTES, SIGNATURE, Header, parse_untrusted, size_of
from turn.codec.values import Address, pack_host


def header(
    source: str = "192.0.2.7",
    port: int = 40000,
    *,
    command: int = 0x21,
    kind: int | None = None,
    tlvs: bytes = b"",
) -> bytes:
    """A header as a proxy writes it."""
    packed = pack_host(source)
    there = pack_host("2001:db8::1" if ":" in source else "198.51.100.1")
    addresses = packed + there + struct.pack("!HH", port, 3478) + tlvs
    kind = kind if kind is not None else (0x22 if ":" in source else 0x12)
    return SIGNATURE + bytes([command, kind]) + len(addresses).to_bytes(2) + addresses


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
@pytest.mark.parametrize("tlvs", [b"", b"\x03\x00\x04abcd"])
@pytest.mark.parametrize("behind", [b"", b"what the client sent"])
def test_it_names_the_client(source: str, tlvs: bytes, behind: bytes) -> None:
    whole = header(source, tlvs=tlvs)
    assert parse_untrusted(whole + behind) == Header(Address(source, 40000), len(whole))


def test_a_stream_is_as_good_as_datagrams() -> None:
    assert parse_untrusted(header(kind=0x11)).client == Address("192.0.2.7", 40000)


def test_an_ipv4_client_of_a_proxy_that_speaks_ipv6_is_one() -> None:
    """Else all of them are one /64, and share its quota."""
    assert parse_untrusted(header("::ffff:192.0.2.7")).client == Address("192.0.2.7", 40000)


@pytest.mark.parametrize(
    "whole",
    [
        header(command=0x20),
        header(command=0x20, kind=0),
        header(kind=0),
        SIGNATURE + b"\x20\x00\x00\x00",
    ],
)
def test_a_proxy_may_speak_for_itself(whole: bytes) -> None:
    assert parse_untrusted(whole) == Header(None, len(whole))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 3478\r\n",
        SIGNATURE,
        SIGNATURE + b"\x21\x12\x00",
        header()[:-1],
        header(command=0x11),
        header(command=0x22),
        header(kind=0x31),
        header(kind=0x22),
        SIGNATURE + b"\x21\x12\x00\x04" + bytes(4),
        SIGNATURE + b"\x21\x12\xff\xff" + bytes(65535),
        SIGNATURE + b"\x21\x12" + (MOST_BYTES - 15).to_bytes(2) + bytes(MOST_BYTES),
        b"x" + header()[1:],
    ],
)
def test_nothing_else_is_one(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_untrusted(data)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(SIGNATURE.__add__))
def test_it_is_total(data: bytes) -> None:
    try:
        found = parse_untrusted(data)
    except Malformed:
        return
    assert found.size == size_of(data) <= len(data)
