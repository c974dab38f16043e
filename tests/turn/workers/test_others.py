"""What one worker asks the others for, and how much of that at a time."""

from collections.abc import Sequence
from itertools import count

import pytest
from msgspec import Struct

from turn.allocation.books import OwnBooks
from turn.allocation.elsewhere import Shown
from turn.allocation.model import Owner
from turn.allocation.record import Record, RelayedRecord
from turn.bandwidth import ALL
from turn.codec.values import Address
from turn.routes import Transport
from turn.workers.books import SharedBooks
from turn.workers.keys import Keys
from turn.workers.ledger import Ledger
from turn.workers.loans import Borrower
from turn.workers.memory import Memory
from turn.workers.messages import Claim, Take
from turn.workers.others import MOST_AT_ONCE, Others

ALICE, BOB = Owner("1:alice", "alice"), Owner("1:bob", "bob")
TOKEN, TICKET = b"\x01" + bytes(7), b"01" + bytes(30)


@pytest.mark.parametrize("what", ["a reserved port", "an allocation"])
async def test_a_user_asks_for_so_much_at_once_and_no_more(what: str) -> None:
    """Else it takes what all have together, a share for each question that waits."""
    books, sent = OwnBooks(), list[Struct]()

    def send(message: Struct, descriptors: Sequence[int] = ()) -> None:
        sent.append(message)

    borrower = Borrower(0, 2, count(), send, lambda _: None)
    others = Others(0, 2, books, count(), send, borrower, Keys(0, count(), send))
    said: list[object] = []

    def ask(owner: Owner) -> None:
        if what == "an allocation":
            others.fetch_allocation(Shown(TICKET, owner, "192.0.2.7", Transport.UDP), said.append)
        else:
            others.fetch(TOKEN, owner, said.append)

    for _ in range(MOST_AT_ONCE + 3):
        ask(ALICE)
    assert len(sent) == books._counts[ALL] == MOST_AT_ONCE
    assert said == [508 if what == "an allocation" else None] * 3
    ask(BOB)
    assert len(sent) == MOST_AT_ONCE + 1
    for message in sent:
        if isinstance(message, Claim):
            others.answered(message.number, None)
        elif isinstance(message, Take):
            others.taken(message.number, 400)
    assert len(said) == MOST_AT_ONCE + 4
    assert not books._counts
    ask(ALICE)
    assert len(sent) == MOST_AT_ONCE + 2


async def test_an_allocation_that_has_lost_its_sockets_is_over() -> None:
    """This process may open no more files: who sends to its addresses hears that they are gone."""
    memory = Memory.create(2)
    ledger = Ledger(memory, bytes(32))
    told: list[tuple[Address, Sequence[int]]] = []
    books = [SharedBooks(ledger, n, lambda *it: told.append(it)) for n in range(2)]
    relayed = Address("192.0.2.1", 50000)
    books[0].opened(relayed)
    assert books[1].is_live(relayed)  # a client of this worker sends there
    books[0].handed_over(relayed)

    said: list[object] = []
    borrower = Borrower(1, 2, count(), lambda *_: None, lambda _: None)
    keys = Keys(1, count(), lambda *_: None)
    others = Others(1, 2, books[1], count(7), lambda *_: None, borrower, keys)
    others.fetch_allocation(
        Shown(b"00" + bytes(30), ALICE, "192.0.2.7", Transport.UDP), said.append
    )
    record = Record(
        ("192.0.2.7", 1), ("192.0.2.1", 3478), *ALICE[:2], 0.0,
        [RelayedRecord("192.0.2.1", 50000, "192.0.2.1", 600.0)], {}, [],
    )  # fmt: skip
    others.lost(7, record)
    assert said == [508]
    assert told == [(relayed, [0])]
    assert not books[0].is_live(relayed)
    assert books[0].ports_in_use("192.0.2.1") == 0
    assert not books[1].has(ALL)
    memory.close()
