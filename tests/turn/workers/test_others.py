"""What one worker asks the others for, and how much of that at a time."""

from collections.abc import Sequence
from itertools import count

import pytest
from msgspec import Struct

from turn.allocation.books import OwnBooks
from turn.allocation.elsewhere import Shown
from turn.allocation.model import Owner
from turn.bandwidth import ALL
from turn.routes import Transport
from turn.workers.loans import Borrower
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
    others = Others(0, 2, books, count(), send, borrower)
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
