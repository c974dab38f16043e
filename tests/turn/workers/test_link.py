"""Messages and descriptors between a pool and a worker."""

import asyncio
import os
import resource
import socket
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.descriptors import none_left
from tests.patience import until
from turn.workers.link import HEAD, LARGEST, Link
from turn.workers.messages import (
    FROM_WORKER,
    TO_WORKER,
    Addresses,
    Failed,
    Report,
    Socket,
    Started,
    Stop,
)


class End:
    """One end, and what it heard."""

    def __init__(self, sock, decoder):
        self.heard: list[tuple[msgspec.Struct, list[int]]] = []
        self.lost = 0
        self.link = Link(sock, decoder, lambda *it: self.heard.append(it), self._lost)

    def _lost(self):
        self.lost += 1


@pytest.fixture
async def ends():
    """A pool's end and a worker's."""
    pair = socket.socketpair()
    made = End(pair[0], FROM_WORKER), End(pair[1], TO_WORKER)
    yield made
    for end in made:
        end.link.close()


@pytest.fixture
async def raw():
    """A pool's end, and the bare socket of whoever is at the other one."""
    ours, theirs = socket.socketpair()
    end = End(ours, FROM_WORKER)
    yield end, theirs
    end.link.close()
    theirs.close()


@pytest.fixture
def socks():
    """Two that can be sent."""
    with socket.socket() as one, socket.socket() as two:
        yield one, two


def opened():
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_messages_come_in_order_each_with_its_descriptors(ends):
    pool, worker = ends
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        names = [one.getsockname(), two.getsockname()]
        pool.link.send(Report(1))
        pool.link.send(Socket("tcp", "127.0.0.1", 1), [one.fileno()])
        pool.link.send(Socket("tcp", "127.0.0.1", 2), [two.fileno()])
        pool.link.send(Stop())
    await until(lambda: len(worker.heard) == 4)
    messages, descriptors = zip(*worker.heard, strict=True)
    assert messages == (
        Report(1),
        Socket("tcp", "127.0.0.1", 1),
        Socket("tcp", "127.0.0.1", 2),
        Stop(),
    )
    assert [len(each) for each in descriptors] == [0, 1, 1, 0]
    for number, name in enumerate(names, 1):
        with socket.socket(fileno=descriptors[number][0]) as came:
            assert came.getsockname() == name


async def test_what_is_longer_than_the_kernel_takes_at_once(ends):
    pool, worker = ends
    long = Addresses(["192.0.2.1"] * 200_000)
    for _ in range(3):
        pool.link.send(long, [0])
    pool.link.send(Stop())
    await until(lambda: len(worker.heard) == 4)
    assert [message for message, _ in worker.heard] == [long, long, long, Stop()]
    for _, descriptors in worker.heard[:3]:
        os.close(descriptors[0])


async def test_the_end_of_the_other_is_heard_once(ends):
    pool, worker = ends
    worker.link.send(Failed("why"))
    worker.link.close()
    await until(lambda: pool.lost)
    assert pool.heard == [(Failed("why"), [])]
    pool.link.send(Stop())
    pool.link.close()
    assert (pool.lost, worker.lost) == (1, 0)


@pytest.mark.parametrize(
    "nonsense",
    [
        HEAD.pack(4, 0) + b"\xc1\xc1\xc1\xc1",
        HEAD.pack(LARGEST + 1, 0),
        HEAD.pack(1, 200) + b"\x80",
        HEAD.pack(1, 1) + b"\x80",
        HEAD.pack(1, 0) + msgspec.msgpack.encode(7),
        HEAD.pack(len(msgspec.msgpack.encode(Stop())), 0) + msgspec.msgpack.encode(Stop()),
    ],
    ids=["no MessagePack", "too long", "too many", "none came", "another type", "not its to say"],
)
async def test_nonsense_ends_it(raw, nonsense):
    pool, worker = raw
    worker.send(nonsense)
    await until(lambda: pool.lost)
    assert pool.heard == []


async def test_a_message_in_pieces(raw):
    pool, worker = raw
    body = msgspec.msgpack.encode(Started([]))
    for byte in HEAD.pack(len(body), 0) + body:
        worker.send(bytes([byte]))
        await asyncio.sleep(0)
    await until(lambda: pool.heard)
    assert pool.heard == [(Started([]), [])]


class TestNoDescriptorsLeft:
    """One message goes without its descriptors; the link and all other messages go on."""

    async def test_at_the_end_that_receives(self, ends, socks):
        pool, worker = ends
        one, two = socks
        pool.link.send(Report(1))
        pool.link.send(Socket("tcp", "127.0.0.1", 1), [one.fileno(), two.fileno()])
        pool.link.send(Report(2))
        with none_left(), capture_logs() as logs:
            await until(lambda: len(worker.heard) == 3)
        pool.link.send(Socket("tcp", "127.0.0.1", 2), [two.fileno()])
        await until(lambda: len(worker.heard) == 4)
        assert [message for message, _ in worker.heard] == [
            Report(1),
            Socket("tcp", "127.0.0.1", 1),
            Report(2),
            Socket("tcp", "127.0.0.1", 2),
        ]
        assert [len(each) for _, each in worker.heard] == [0, 0, 0, 1]
        os.close(worker.heard[3][1][0])
        assert worker.lost == 0
        assert len(logs) == 1
        assert "LimitNOFILE" in logs[0]["event"]

    async def test_some_are_none(self, ends, socks):
        pool, worker = ends
        before = opened()
        pool.link.send(Socket("tcp", "127.0.0.1", 1), [sock.fileno() for sock in socks])
        with none_left():
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0] + 1, limits[1]))  # one of two
            await until(lambda: worker.heard)
        assert worker.heard == [(Socket("tcp", "127.0.0.1", 1), [])]
        assert opened() == before

    async def test_at_the_end_that_sends(self, ends, socks):
        pool, worker = ends
        before = opened()
        with none_left(), capture_logs() as logs:
            for _ in range(3):
                pool.link.send(Socket("tcp", "127.0.0.1", 1), [sock.fileno() for sock in socks])
        await until(lambda: len(worker.heard) == 3)
        assert worker.heard == [(Socket("tcp", "127.0.0.1", 1), [])] * 3
        assert opened() == before
        assert len(logs) == 1, "once a minute is enough"


async def test_the_last_words_of_an_end_are_sent_and_heard(ends):
    """More than a socket holds, and more than is read at a time."""
    pool, worker = ends
    for number in range(2000):
        worker.link.send(Failed(f"{number} {'x' * 1000}"))
    await worker.link.flush()
    assert len(pool.heard) > 1000, "it was read meanwhile"
    worker.link.close()
    await pool.link.end(patience=10)
    assert len(pool.heard) == 2000
    assert pool.lost == 1


async def test_an_end_that_lives_on_is_not_waited_for_without_an_end(ends):
    pool, _ = ends
    async with asyncio.timeout(5):
        await pool.link.end(patience=0.05)
    assert pool.lost == 0
