"""Connections with peers (RFC 6062) that this worker has lent to others, or borrowed of them.

The number of a loan is the borrower's. Either side ends it, by ``Recall`` or ``Ended``; ``Died``
ends all loans of a worker, which can say nothing any more.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from turn.allocation.connections import Claimant
from turn.allocation.elsewhere import Lent as Done
from turn.allocation.model import Owner
from turn.bandwidth import Budgets
from turn.codec.errors import StunError
from turn.lending import Lending, Loan
from turn.relay.tcp import PeerStream
from turn.routes import FiveTuple
from turn.stats import Stats
from turn.workers.messages import Borrow, Ended, Follow, Lent, Recall

MOST_AT_ONCE = 16
"""Questions of one user that wait for an answer; each takes the time of three processes."""
PATIENCE = 5.0
"""Seconds; far longer than an answer takes, shorter than a client waits."""

Spawn = Callable[[Coroutine[None, None, None]], None]
"""Does something that takes a while."""


class Send(Protocol):
    """Tells the pool."""

    def __call__(self, message: Struct, descriptors: Sequence[int] = ()) -> None:
        """Send a message, with copies of descriptors; they may be lost on the way."""


class Far:
    """A connection whose bytes another worker passes on (``connections.PeerStream``)."""

    def __init__(self, recall: Callable[[], None]) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self.sending: Budgets | None = None
        self.receiving: Budgets | None = None
        self.tenant = ""
        self.abort = recall


class Lender:
    """What this worker has lent."""

    def __init__(self, lending: Lending, send: Send) -> None:
        self._lending = lending
        self._send = send
        self._lent: dict[tuple[int, int], Far] = {}
        """By borrower and number."""

    def asked(self, question: Borrow) -> None:
        """Lend a connection, or say why not."""
        number, asking, holding = question.number, question.asking, question.holding
        far = Far(lambda: self._recall(asking, number))
        claimant = Claimant(question.owner, question.host)
        try:
            sock, early, buckets = self._lending.lend(question.connection, claimant, far)
        except StunError as error:
            self._send(Lent(number, asking, holding, error.code))
            return
        self._lent[asking, number] = far
        with sock:
            self._send(Lent(number, asking, holding, 0, early, buckets), [sock.fileno()])

    def ended(self, message: Ended) -> None:
        """A loan is over: its connection counts no more."""
        self._end(message.asking, message.number)

    def worker_gone(self, worker: int) -> None:
        """All that a worker had borrowed has ended with it."""
        for asking, number in [loan for loan in self._lent if loan[0] == worker]:
            self._end(asking, number)

    def _end(self, asking: int, number: int) -> None:
        far = self._lent.pop((asking, number), None)
        if far is not None:
            far.on_end()

    def _recall(self, asking: int, number: int) -> None:
        if self._lent.pop((asking, number), None) is not None:
            self._send(Recall(number, asking))


class Asked(NamedTuple):
    """A question that waits for its answer."""

    holding: int
    owner: Owner
    done: Done
    patience: asyncio.TimerHandle


class Borrower:
    """What this worker has borrowed."""

    def __init__(
        self, worker: int, workers: int, numbers: Iterator[int], send: Send, spawn: Spawn
    ) -> None:
        self._worker = worker
        self._workers = workers
        self._numbers = numbers
        self._send = send
        self._spawn = spawn
        self._asked: dict[int, Asked] = {}
        self._borrowed: dict[int, tuple[int, PeerStream]] = {}
        """By number: whose, and what goes on with it here."""

    def __len__(self) -> int:
        return len(self._borrowed)

    def holds(self, connection: int) -> bool:
        """Whether another worker made this CONNECTION-ID: it begins with the number of who did."""
        maker = connection >> 24
        return maker != self._worker and maker < self._workers

    def ask(self, connection: int, claimant: Claimant, done: Done) -> None:
        """Have a connection lent (``elsewhere.Streams``). :raises StunError: 508."""
        owner, host = claimant
        waiting = sum(asked.owner.user == owner.user for asked in self._asked.values())
        if waiting >= MOST_AT_ONCE:
            raise StunError(508)
        number, holding = next(self._numbers), connection >> 24
        timer = asyncio.get_running_loop().call_later(PATIENCE, self._refuse, number, 447)
        self._asked[number] = Asked(holding, owner, done, timer)
        self._send(Borrow(number, self._worker, holding, connection, owner, host))

    def answered(self, answer: Lent, socks: Sequence[socket.socket], lending: Lending) -> None:
        """The answer has come, or comes too late."""
        number, holding = answer.number, answer.holding
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.patience.cancel()
        if asked is not None and socks:
            stream = lending.expect()
            stream.on_end = lambda: self._over(number)
            stream.tenant = asked.owner.tenant
            self._borrowed[number] = holding, stream
            loan = Loan(socks[0], answer.early, answer.buckets)
            self._spawn(self._go_on(number, stream, asked.done, lending.borrow(stream, loan)))
            return
        if not answer.code:  # too late, or lost on the way: there it counts until it hears of that
            self._send(Ended(number, self._worker, holding))
        for sock in socks:
            sock.close()
        if asked is not None:
            asked.done(answer.code or 447)

    async def _go_on(
        self, number: int, stream: PeerStream, done: Done, borrowing: Awaitable[None]
    ) -> None:
        """Take a connection over, and have its client told."""
        try:
            await borrowing
        except OSError:
            self._over(number)
            done(447)
            return
        if number in self._borrowed:
            done(stream)
        else:  # it has ended meanwhile, at either side
            stream.abort()
            done(400)

    # Clients that go where their allocation is ---------------------------------------------

    def follow(self, holding: int, client: FiveTuple, message: bytes, done: Done) -> None:
        """Let a client's connection go on at another worker (``elsewhere.Tickets``).

        Its bytes are passed on here, since its TLS ends here: a few messages, as the allocation is
        one for TCP. Either worker's end is the end of the connection, as of any.
        """
        self._spawn(self._lead(holding, client, message, done))

    async def _lead(self, holding: int, client: FiveTuple, message: bytes, done: Done) -> None:
        stream = PeerStream(Stats())  # what it counts is nobody's payload
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            done(508)
            return
        try:
            with theirs:
                ours.send(message)
                self._send(Follow(holding, *client), [theirs.fileno()])
            await stream.attach(ours, b"")
        except OSError:
            ours.close()
            done(508)
        else:
            done(stream)

    def recalled(self, number: int) -> None:
        """What was lent has to end."""
        _, stream = self._borrowed.pop(number, (0, None))
        if stream is not None:
            stream.abort()

    def worker_gone(self, worker: int) -> None:
        """What a worker has lent ends with it; what was asked of it, nobody has."""
        for number in [n for n, (holding, _) in self._borrowed.items() if holding == worker]:
            self.recalled(number)
        for number in [n for n, asked in self._asked.items() if asked.holding == worker]:
            self._refuse(number, 400)

    def _refuse(self, number: int, code: int) -> None:
        asked = self._asked.pop(number)
        asked.patience.cancel()
        asked.done(code)

    def _over(self, number: int) -> None:
        """A connection has ended here, or could not be gone on with."""
        holding, stream = self._borrowed.pop(number, (0, None))
        if stream is not None:
            self._send(Ended(number, self._worker, holding))
