"""The other workers, as one of them sees them: what they hold for clients who came here."""

import asyncio
import socket
from collections.abc import Iterator
from itertools import chain

from turn.allocation.books import Books
from turn.allocation.connections import Claimant
from turn.allocation.elsewhere import Arrived, Fetched, Granted, Lent, Moved, Shown
from turn.allocation.model import Owner, Relay
from turn.allocation.record import Record
from turn.allocation.table import shares_of_owner
from turn.bandwidth import ALL
from turn.codec.values import Address
from turn.routes import FiveTuple
from turn.workers.keys import Keys
from turn.workers.loans import Borrower, Send
from turn.workers.messages import Claim, Take

MOST_ADDRESSES = 2
"""Of an allocation: one of each family."""
MOST_AT_ONCE = 16
"""Questions of one user that wait for an answer; more are not even asked. Each takes a share of
what all have together until it is answered, and the time of three processes."""
PATIENCE = 5.0
"""Seconds; far longer than an answer takes, shorter than a client goes on asking (39.5 s)."""


class Others:
    """Asks them (``Elsewhere``)."""

    def __init__(
        self,
        worker: int,
        workers: int,
        books: Books,
        numbers: Iterator[int],
        send: Send,
        borrower: Borrower,
        keys: Keys,
    ) -> None:
        """Prepare to ask.

        :param numbers: of questions. None of a dead worker's comes again with the one that follows
            it: an answer that is still on its way would be taken for another one's.
        """
        self._worker = worker
        self._workers = workers
        self._books = books
        self._send = send
        self._numbers = numbers
        self.borrower = borrower
        self.keys = keys
        self._moving: dict[int, tuple[Arrived, Owner, asyncio.TimerHandle]] = {}
        self._waiting: dict[int, tuple[Fetched, Owner, asyncio.TimerHandle]] = {}

    def holds(self, token: bytes) -> bool:
        """Whether one of them made this token: it begins with the number of who did."""
        return token[:1] != bytes([self._worker]) and token[0] < self._workers

    def fetch(self, token: bytes, owner: Owner, done: Fetched) -> None:
        """Have a port handed over.

        Its share of the user's quota is counted at both until it is here: never at none.
        """
        number = next(self._numbers)
        if not self._may_ask(owner):
            done(None)
            return
        self._books.take(shares_of_owner(owner, 1) | {ALL: 1})
        timer = asyncio.get_running_loop().call_later(PATIENCE, self.answered, number, None)
        self._waiting[number] = (done, owner, timer)
        self._send(Claim(number, self._worker, token[0], token, owner))

    # Allocations that clients take along (RFC 8016) -----------------------------------------

    def _may_ask(self, owner: Owner) -> bool:
        """Whether a user has not asked for too much already."""
        asked = chain(self._moving.values(), self._waiting.values())
        return sum(each.user == owner.user for _, each, _ in asked) < MOST_AT_ONCE

    def holds_ticket(self, ticket: bytes) -> bool:
        """Whether one of them made this ticket: text, which begins like a token."""
        maker = _maker_of(ticket)
        return maker is not None and maker != self._worker and maker < self._workers

    def fetch_allocation(self, shown: Shown, done: Arrived) -> None:
        """Have an allocation handed over; its quota is counted at both until it is here."""
        number = next(self._numbers)
        if not self._may_ask(shown.owner):
            done(508)
            return
        self._books.take(shares_of_owner(shown.owner, MOST_ADDRESSES) | {ALL: 1})
        timer = asyncio.get_running_loop().call_later(PATIENCE, self.taken, number, 508)
        self._moving[number] = (done, shown.owner, timer)
        ticket, owner, host, transport = shown
        self._send(
            Take(
                number=number, asking=self._worker, holding=_maker_of(ticket) or 0, ticket=ticket,
                owner=owner, host=host, transport=transport,
            )
        )  # fmt: skip

    def taken(self, number: int, moved: Moved | int | None) -> None:
        """The answer has come, or comes too late."""
        found = self._moving.pop(number, None)
        if found is None:
            for relay in moved.relays if isinstance(moved, Moved) else ():
                self._tell_over(relay.address)
                relay.close()
            return
        done, owner, timer = found
        timer.cancel()
        done(moved)
        self._books.give(shares_of_owner(owner, MOST_ADDRESSES) | {ALL: 1})

    def lost(self, number: int, record: Record) -> None:
        """An allocation has come without its sockets: it is over."""
        for relayed in record.relayed:
            self._tell_over(relayed.address)
        self.taken(number, 508)

    def _tell_over(self, relayed: Address) -> None:
        """Who was told that a relayed address lives hears that it has ended."""
        self._books.opened(relayed)
        self._books.closed(relayed)

    def follow(self, ticket: bytes, client: FiveTuple, message: bytes, done: Lent) -> None:
        """Let a client's connection go on where its allocation stays."""
        self.borrower.follow(_maker_of(ticket) or 0, client, message, done)

    # Reserved ports -------------------------------------------------------------------------

    def answered(self, number: int, relay: Relay | None) -> None:
        """The answer to a claim has come, or comes too late."""
        found = self._waiting.pop(number, None)
        if found is None:
            if relay is not None:
                relay.close()
            return
        done, owner, timer = found
        timer.cancel()
        done(relay)
        self._books.give(shares_of_owner(owner, 1) | {ALL: 1})

    # Connections with peers (RFC 6062) ------------------------------------------------------

    def holds_connection(self, number: int) -> bool:
        """Whether one of them made this CONNECTION-ID."""
        return self.borrower.holds(number)

    def fetch_grant(self, number: int, host: str, done: Granted) -> None:
        """Hear whose token's key protects the claim of one. :raises StunError: 508."""
        self.keys.ask(number, host, done)

    def borrow_connection(self, number: int, claimant: Claimant, done: Lent) -> None:
        """Have a connection lent. :raises StunError: 508."""
        self.borrower.ask(number, claimant, done)


def as_sockets(descriptors: list[int]) -> list[socket.socket]:
    """The sockets that came with a message."""
    found = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for sock in found:
        sock.setblocking(False)
    return found


def _maker_of(ticket: bytes) -> int | None:
    try:
        return int(ticket[:2], 16)
    except ValueError:
        return None
