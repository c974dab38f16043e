"""What one worker asks of another and lends to it, message by message (RFC 6062)."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator, Sequence
from itertools import count

import pytest
from msgspec import Struct

from tests.turn.live import relay
from turn.allocation.connections import Claimant
from turn.allocation.model import Owner
from turn.codec.errors import StunError
from turn.server import TurnService
from turn.workers.loans import MOST_AT_ONCE, Borrower
from turn.workers.messages import Borrow, Ended, Lent

ALICE, BOB = Owner("1:alice", "alice"), Owner("1:bob", "bob")
HOST = "192.0.2.7"
THEIRS = 0x01ABCDEF


class Side:
    """A worker that borrows; what it says and what its clients are told."""

    def __init__(self) -> None:
        self.sent: list[Struct] = []
        self.told: list[object] = []
        self.work: list[asyncio.Task[None]] = []
        self.borrower = Borrower(0, 2, count(7), self._send, self._spawn)

    def _send(self, message: Struct, descriptors: Sequence[int] = ()) -> None:
        self.sent.append(message)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self.work.append(asyncio.get_running_loop().create_task(work))

    def ask(self, owner: Owner = ALICE) -> None:
        """Ask for the same connection."""
        self.borrower.ask(THEIRS, Claimant(owner, HOST), self.told.append)

    def answer(self, service: TurnService, sock: socket.socket | None, number: int = 7) -> None:
        """An answer that brings a connection, or none."""
        lent = Lent(number, 0, 1, 0 if sock else 400)
        self.borrower.answered(lent, [sock] if sock else [], service.lending)


@pytest.fixture
def side() -> Side:
    return Side()


@pytest.fixture
def pair() -> Iterator[list[socket.socket]]:
    """The peer's end of a connection, and the one that is lent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with peer, ours:
        peer.settimeout(5)
        yield [peer, ours]


def test_whose_a_number_is_it_says_itself() -> None:
    borrower = Side().borrower
    held = [borrower.holds(number) for number in (0x00ABCDEF, THEIRS, 0x02ABCDEF, 0xFFFFFFFF)]
    assert held == [False, True, False, False]


async def test_a_user_asks_for_so_much_at_once_and_no_more(side: Side) -> None:
    for _ in range(MOST_AT_ONCE):
        side.ask()
    with pytest.raises(StunError) as refused:
        side.ask()
    assert refused.value.code == 508
    side.ask(BOB)
    assert side.sent == [
        *(Borrow(7 + n, 0, 1, THEIRS, ALICE, HOST) for n in range(MOST_AT_ONCE)),
        Borrow(7 + MOST_AT_ONCE, 0, 1, THEIRS, BOB, HOST),
    ]
    side.borrower.worker_gone(1)
    assert side.told == [400] * (MOST_AT_ONCE + 1)
    side.ask()


async def test_an_answer_that_nobody_waits_for_is_ended(
    side: Side, pair: list[socket.socket]
) -> None:
    """It came too late, or to the process that followed a dead one."""
    async with relay() as service:
        side.answer(service, pair[1], number=3)
    assert side.sent == [Ended(3, 0, 1)]
    assert pair[0].recv(1) == b""


async def test_what_is_recalled_while_it_is_taken_over_is_ended(
    side: Side, pair: list[socket.socket]
) -> None:
    async with relay() as service:
        side.ask()
        side.answer(service, pair[1])
        side.borrower.recalled(7)
        await asyncio.gather(*side.work)
        assert side.told == [400]
        assert await asyncio.to_thread(pair[0].recv, 1) == b""
        assert len(side.sent) == 1, "who recalls it knows"
        assert not len(side.borrower)


async def test_what_cannot_be_gone_on_with_is_ended(
    side: Side, pair: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, sock: socket.socket) -> None:
        raise OSError("out of memory")

    async with relay() as service:
        side.ask()
        side.answer(service, pair[1])
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fails)
        await asyncio.gather(*side.work)
    assert side.told == [447]
    assert side.sent[1:] == [Ended(7, 0, 1)]
    assert pair[0].recv(1) == b""


async def test_a_dead_workers_connections_end(side: Side, pair: list[socket.socket]) -> None:
    async with relay() as service:
        side.ask()
        side.answer(service, pair[1])
        await asyncio.gather(*side.work)
        (stream,) = side.told
        assert not isinstance(stream, int)
        side.borrower.worker_gone(0)
        assert len(side.borrower) == 1
        side.borrower.worker_gone(1)
        assert await asyncio.to_thread(pair[0].recv, 1) == b""
        assert not len(side.borrower)


async def test_what_is_lost_on_the_way_is_refused_and_counts_no_more(side: Side) -> None:
    """This process may open no more files: the answer has come without its socket."""
    async with relay() as service:
        side.ask()
        side.borrower.answered(Lent(7, 0, 1, 0), [], service.lending)
    assert side.told == [447]
    assert side.sent[1:] == [Ended(7, 0, 1)]
