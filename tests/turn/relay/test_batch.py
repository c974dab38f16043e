"""Many datagrams by one system call: each with its own bytes and source, and never too many."""

import socket

import pytest

from tests.patience import PATIENCE
from turn.codec.values import Address
from turn.relay.batch import (
    LARGEST_DATAGRAM,
    READS_PER_EVENT,
    Inbox,
    Letter,
    address_of,
    receive_one,
)
from turn.routes import key_of

LONGEST = 65507
"""Payload that one IPv4 datagram has room for."""


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request):
    """A socket that is read, and one that sends to it."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as one,
        socket.socket(family, socket.SOCK_DGRAM) as other,
    ):
        for sock in (one, other):
            sock.bind((request.param, 0))
            sock.settimeout(PATIENCE)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        other.connect(one.getsockname())
        yield one, other


def place_of(sock):
    return Address(*sock.getsockname()[:2])


def test_each_datagram_comes_whole_with_its_source(pair):
    one, other = pair
    sent = [b"", b"x", bytes(range(256)) * 200, b"\x40\x00\x00\x00", bytes(LONGEST)]
    for payload in sent:
        other.send(payload)
    got = Inbox(one.family).datagrams(one.fileno())
    assert [bytes(datagram) for datagram, _ in got] == sent
    assert {source for _, source in got} == {place_of(other)}


def test_sources_are_told_apart_by_what_a_client_is_looked_up_by(pair):
    one, other = pair
    inbox = Inbox(one.family)
    with socket.socket(one.family, socket.SOCK_DGRAM) as third:
        third.bind((place_of(other).host, 0))
        third.sendto(b"\x40\x01\x00\x02", one.getsockname())
        other.send(b"\x7f\xff\x00\x03abc")
        assert inbox.receive(one.fileno()) == [4, 7]
        heads = [inbox.head.unpack_from(inbox.buffer, slot) for slot in inbox.slots[:2]]
        assert heads == [
            (key_of(place_of(third)), 0x4001, 2),
            (key_of(place_of(other)), 0x7FFF, 3),
        ]


def test_no_more_than_its_share_at_a_time_and_nothing_twice(pair):
    one, other = pair
    for number in range(READS_PER_EVENT + 3):
        other.send(bytes([number]))
    inbox, got = Inbox(one.family), []
    for count in (READS_PER_EVENT, 3, 0):
        datagrams = inbox.datagrams(one.fileno())
        assert len(datagrams) == count
        got += [datagram[0] for datagram, _ in datagrams]
    assert got == list(range(READS_PER_EVENT + 3))


def test_the_icmp_error_of_an_earlier_packet_is_read_and_the_next_reading_is_clear_of_it(pair):
    one, other = pair
    with socket.socket(one.family, socket.SOCK_DGRAM) as gone:
        gone.bind((place_of(other).host, 0))
        nowhere = gone.getsockname()
    one.connect(nowhere)  # only then does a socket hear of it without asking
    one.send(b"x")
    inbox = Inbox(one.family)
    assert inbox.datagrams(one.fileno()) == []
    with socket.socket(one.family, socket.SOCK_DGRAM) as back:
        back.bind(nowhere)
        back.sendto(b"back", one.getsockname())
    assert [bytes(datagram) for datagram, _ in inbox.datagrams(one.fileno())] == [b"back"]


def test_a_closed_socket_has_nothing(pair):
    one, _ = pair
    one.close()
    assert Inbox(socket.AF_INET).receive(one.fileno()) == []


def test_a_letter_is_read_behind_its_margin_with_its_source(pair):
    one, other = pair
    one.setblocking(False)
    buffer = bytearray(10 + LARGEST_DATAGRAM)
    letter = Letter(one.family, buffer, 10)
    for payload in (b"", b"x", bytes(range(256)) * 200, bytes(LONGEST)):
        other.send(payload)
        size = receive_one(one.fileno(), letter.message, 0)
        assert buffer[:10] + payload == bytes(10) + buffer[10 : 10 + size]
        assert letter.unpack(letter.name) == (key_of(place_of(other)),)
    assert receive_one(one.fileno(), letter.message, 0) < 0


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "::1"])
def test_a_key_stands_for_its_address(host):
    assert address_of(key_of(Address(host, 40000))) == Address(host, 40000)


def test_slots_have_room_for_the_longest_datagram_and_do_not_overlap():
    inbox = Inbox(socket.AF_INET6)
    ends = [slot + inbox.begin + LARGEST_DATAGRAM for slot in inbox.slots]
    assert all(end <= begin for end, begin in zip(ends, inbox.slots[1:], strict=False))
    assert ends[-1] <= len(inbox.buffer)
