"""Which worker a datagram goes to, and into which of its queues, as the kernel does it."""

import socket
from contextlib import ExitStack

import pytest

from tests.turn.transport.test_queues import DATA, REQUESTS, read_all
from turn.transport.bind import bind_udp
from turn.workers.division import divide

WORKERS, CLIENTS = 3, 120
WHOLE = [payload for payload in DATA if len(payload) > 1]
"""What is shorter than a number of a channel is nobody's, and any worker may drop it."""


@pytest.fixture(params=["127.0.0.1", "::1"], name="group")
def group_fixture(request):
    """The sockets of three workers at one address: for data, and for requests."""
    with ExitStack() as stack:
        with bind_udp(request.param, 0) as alone:
            port = alone.getsockname()[1]
        members = [
            stack.enter_context(bind_udp(request.param, port, shared=True)) for _ in range(WORKERS)
        ]
        requests = [stack.enter_context(each) for each in divide(members)]
        assert len(requests) == WORKERS
        yield members, requests


def test_all_that_a_client_says_comes_to_one_worker_and_every_worker_has_clients(group):
    members, requests = group
    served = set()
    for _ in range(CLIENTS):
        with socket.socket(members[0].family, socket.SOCK_DGRAM) as client:
            for payload in (*WHOLE, *REQUESTS):
                client.sendto(payload, members[0].getsockname())
        data, asked = ([read_all(sock) for sock in socks] for socks in (members, requests))
        (worker,) = (number for number, found in enumerate(data) if found)
        assert data[worker] == WHOLE
        assert [number for number, found in enumerate(asked) if found] == [worker]
        assert asked[worker] == REQUESTS
        served.add(worker)
    assert served == set(range(WORKERS))


def test_a_client_is_the_same_workers_after_a_restart(group):
    """Its allocation is there, if there is a folder to record it in."""
    members, _ = group
    place = members[0].getsockname()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.socket(members[0].family, socket.SOCK_DGRAM))
            for _ in range(20)
        ]

        def deal(socks):
            for number, client in enumerate(clients):
                client.sendto(b"\x40\x00" + number.to_bytes(2), place)
            return [sorted(read_all(sock)) for sock in socks]

        before = deal(members)
        for each in (*members, *group[1]):
            each.close()
        again = [stack.enter_context(bind_udp(place[0], place[1], shared=True)) for _ in members]
        assert [stack.enter_context(each) for each in divide(again)]
        assert deal(again) == before


def test_a_full_queue_of_requests_leaves_room_for_data(group):
    members, requests = group
    with socket.socket(members[0].family, socket.SOCK_DGRAM) as client:
        for _ in range(100_000):
            client.sendto(REQUESTS[0], members[0].getsockname())
        client.sendto(DATA[0], members[0].getsockname())
    assert [found for found in map(read_all, members) if found] == [[DATA[0]]]
    assert 0 < sum(len(read_all(sock)) for sock in requests) < 100_000
