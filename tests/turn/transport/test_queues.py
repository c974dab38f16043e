"""Two queues for one UDP address, as the kernel fills them."""

import errno
import socket
from contextlib import closing

import pytest

from turn.codec.message import build
from turn.codec.registry import MessageClass, Method
from turn.transport.bind import bind_udp
from turn.transport.queues import requests_apart


def indication(method):
    return build(method, MessageClass.INDICATION, bytes(12), ())


DATA = [
    b"\x40\x00\x00\x00",
    b"\x7f\xff",
    b"\x80",
    b"\xff" * 1200,
    indication(Method.SEND),
    b"",
    b"\x00",
]
REQUESTS = [
    build(Method.BINDING, MessageClass.REQUEST, bytes(12), ()),
    build(Method.REFRESH, MessageClass.REQUEST, bytes(12), ()),
    indication(Method.DATA),
    b"\x16\xfe\xfd" + bytes(40),
    b"\x00\x00",
    b"\x3f\x16",
]


@pytest.fixture(params=["127.0.0.1", "::1"], name="pair")
def pair_fixture(request):
    """A bound socket and the one for requests."""
    with closing(bind_udp(request.param, 0)) as data:
        requests = requests_apart(data)
        assert requests is not None
        with closing(requests):
            yield data, requests


def read_all(sock):
    found = []
    while True:
        try:
            found.append(sock.recv(2000))
        except BlockingIOError:
            return found


def test_what_has_a_route_comes_in_by_the_first(pair):
    data, requests = pair
    for _ in range(20):  # from as many ports
        with socket.socket(data.family, socket.SOCK_DGRAM) as client:
            for payload in (*DATA, *REQUESTS):
                client.sendto(payload, data.getsockname())
    assert read_all(data) == DATA * 20
    assert read_all(requests) == REQUESTS * 20


def test_a_full_queue_of_requests_leaves_room_for_data(pair):
    data, requests = pair
    with socket.socket(data.family, socket.SOCK_DGRAM) as client:
        for _ in range(100_000):
            client.sendto(REQUESTS[0], data.getsockname())
        client.sendto(DATA[0], data.getsockname())
    assert read_all(data) == [DATA[0]]
    assert 0 < len(read_all(requests)) < 100_000


def test_the_address_is_still_nobody_elses(pair):
    """Another relay that is started by mistake is told so."""
    host, port = pair[0].getsockname()[:2]
    with pytest.raises(OSError) as refused:  # noqa: PT011 - its number is looked at
        bind_udp(host, port)
    assert refused.value.errno == errno.EADDRINUSE


def test_a_socket_that_outlived_its_process_has_two_queues_again(pair):
    """The supervisor keeps the first one, and what was set on it."""
    data, requests = pair
    requests.close()
    again = requests_apart(data)
    assert again is not None
    with again, socket.socket(data.family, socket.SOCK_DGRAM) as client:
        for payload in (*DATA, *REQUESTS):
            client.sendto(payload, data.getsockname())
        assert read_all(data) == DATA
        assert read_all(again) == REQUESTS
