"""Groups of sockets that workers listen on."""

import socket

import pytest

from tests.interop.process import free_port
from tests.turn.live import settings
from turn.transport.listeners import ListenError
from turn.workers.sockets import Groups, Handed


@pytest.fixture
def groups():
    """Groups of two, closed in the end."""
    made = []

    def groups(**changes):
        made.append(Groups(settings(**changes), 2))
        return made[-1]

    yield groups
    for each in made:
        each.close()


def places(groups):
    return sorted({(group.kind, *member.getsockname()[:2])
                   for group in groups for member in group.members})  # fmt: skip


def test_a_group_of_each_address_and_protocol(groups):
    port, tls = free_port(), free_port()
    made = groups(listen=[f"0.0.0.0:{port}", f"[::1]:{port}"], listen_tls=[f"127.0.0.1:{tls}"],
                  tls_certificate="/c", tls_key="/k")  # fmt: skip
    made.open(["127.0.0.1", "127.0.0.2", "::1"])
    assert places(made) == [
        ("tcp", "0.0.0.0", port), ("tcp", "127.0.0.1", tls), ("tcp", "::1", port),
        ("udp", "127.0.0.1", port), ("udp", "127.0.0.2", port), ("udp", "::1", port),
    ]  # fmt: skip
    assert {len(group.members) for group in made} == {2}
    assert {(group.kind, len(group.requests)) for group in made} == {("tcp", 0), ("udp", 2)}


def test_new_addresses_are_opened_and_gone_ones_let_go(groups):
    port = free_port()
    made = groups(listen=[f"0.0.0.0:{port}"])
    made.open(["127.0.0.1", "127.0.0.2"])
    fresh = made.follow(["127.0.0.2", "127.0.0.3", "192.0.2.1"])  # the last one is not ours
    assert [group.host for group in fresh] == ["127.0.0.3"]
    assert places(made) == [
        ("tcp", "0.0.0.0", port), ("udp", "127.0.0.2", port), ("udp", "127.0.0.3", port),
    ]  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
    assert made.follow(["127.0.0.2", "127.0.0.3"]) == []


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_one_that_cannot_be_had_leaves_none_open(groups, kind):
    """Not even where its owner would share it: that is another server."""
    port = free_port()
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        made = groups(listen=[f"127.0.0.1:{port}"])
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}"):
            made.open([])
        assert list(made) == []
    made.open([])


def test_a_worker_takes_each_socket_once():
    handed = Handed()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        handed.put("udp", "127.0.0.1", 3478, [sock.detach()])
    with handed.bind.udp("127.0.0.1", 3478) as taken:
        assert not taken.getblocking()
    for bind in (handed.bind.udp, handed.bind.tcp):
        with pytest.raises(OSError, match="its socket has not come from the pool"):
            bind("127.0.0.1", 3478)
    handed.close()


def test_a_worker_finds_the_second_queue_of_its_socket(groups):
    made = groups(listen=[f"127.0.0.1:{free_port()}"])
    made.open([])
    handed = Handed()
    (group,) = (each for each in made if each.kind == "udp")
    handed.put("udp", group.host, group.port, [sock.dup().detach() for sock in group.of(1)])
    with handed.bind.udp(group.host, group.port) as data:
        found = handed.bind.requests(data)
        assert found is not None
        with found:
            assert found.getsockname() == data.getsockname()
        assert handed.bind.requests(data) is None
    handed.close()


def test_dtls_has_one_queue(groups):
    """Its first bytes do not tell what waits for whom."""
    made = groups(listen=[], listen_dtls=[f"127.0.0.1:{free_port()}"],
                  tls_certificate="/c", tls_key="/k")  # fmt: skip
    made.open([])
    assert [(len(group.members), group.requests) for group in made] == [(2, [])]
