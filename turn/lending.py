"""Connections of TCP allocations that one worker lends to another (RFC 6062).

A client's second connection comes to any worker, and what is TLS cannot leave it again. So the
connection with the peer goes there, which is plain TCP, and what bounds its allocation with it.
"""

import socket
import time
from math import ceil
from typing import NamedTuple, cast

from turn.allocation.books import Books, key_of_relay
from turn.allocation.connections import Claimant
from turn.allocation.connections import PeerStream as Far
from turn.allocation.engine import Engine
from turn.allocation.model import Allocation
from turn.allocation.table import place_of
from turn.auth.third_party import Grant
from turn.bandwidth import ALL, Budget, Budgets, ByteBudget, Key, Pair, Twins
from turn.codec.errors import StunError
from turn.relay.tcp import PeerStream
from turn.stats import DropReason, Stats


class Bucket(NamedTuple):
    """A rate that holds for what a connection carries, wherever it does."""

    key: Key
    """What is counted, and whose."""
    rate: int
    """Bytes a second, each way."""
    reason: DropReason


class Loan(NamedTuple):
    """A connection with a peer on its way to another worker."""

    sock: socket.socket
    early: bytes
    """What the peer has sent already."""
    buckets: list[Bucket]


class Lending:
    """A relay beside others of this machine, whose clients come to it, and its own to them."""

    def __init__(self, engine: Engine, stats: Stats) -> None:
        self._engine = engine
        self._stats = stats
        self._books = engine.table.books

    def lend(self, number: int, claimant: Claimant, far: Far) -> Loan:
        """Let go of a connection that a client of another worker shows the number of.

        It stays the allocation's: what ends that ends ``far``.

        :raises StunError: 400, 441, 403, it may not have it; 447, the peer is gone.
        """
        allocation, stream = self._engine.lend(number, claimant, far)
        try:
            sock, early = cast("PeerStream", stream).detach()
        except OSError:
            far.on_end()
            stream.abort()
            raise StunError(447) from None
        return Loan(sock, early, share_rates(allocation, self._books, time.monotonic()))

    def grant_of(self, number: int) -> Grant | None:
        """What protects the claim of a connection (``Engine.grant_of``)."""
        return self._engine.grant_of(number)

    def expect(self) -> PeerStream:
        """A connection with a peer that is still to come (``borrow``)."""
        return PeerStream(self._stats)

    async def borrow(self, stream: PeerStream, loan: Loan) -> None:
        """Go on with a connection that another worker let go of. :raises OSError: it is over."""
        pair = shared_rates(loan.buckets, self._books, time.monotonic())
        stream.sending, stream.receiving = pair
        await stream.attach(loan.sock, loan.early)


def share_rates(allocation: Allocation, books: Books, now: float) -> list[Bucket]:
    """What bounds an allocation, where other workers take of it too.

    The buckets of a user, an address and of all are there anyway. Its own are put beside the
    row of its relayed address, which is kept as long as it lives.
    """
    sending, receiving = allocation.budgets
    if sending is None or receiving is None:
        return []
    (relayed,) = allocation.relayed.values()
    own = key_of_relay(relayed.relay.address, is_tcp=True)
    for out, back in zip(sending.all, receiving.all, strict=True):
        if out.reason is DropReason.BANDWIDTH:
            shared = books.budgets(own, out.rate, out.reason)
            if shared is not None:
                _move(out, shared[0], now)
                _move(back, shared[1], now)
    keys = {
        DropReason.BANDWIDTH: own,
        DropReason.USER_BANDWIDTH: ("user", allocation.owner.user),
        DropReason.TENANT_BANDWIDTH: ("tenant", allocation.owner.tenant),
        DropReason.ADDRESS_BANDWIDTH: place_of(allocation.client),
        DropReason.TOTAL_BANDWIDTH: ALL,
    }
    return [Bucket(keys[each.reason], each.rate, each.reason) for each in sending.all]


def _move(budget: Budget, shared: Budget, now: float) -> None:
    """Keep a bucket elsewhere from now on, as empty as it is."""
    if isinstance(budget, ByteBudget) and budget.keeper is None:
        shared.holds(0, now)
        shared.spend(max(0, ceil((budget.full - now) * budget.rate)))
        budget.keeper = shared


def shared_rates(buckets: list[Bucket], books: Books, now: float) -> Pair:
    """The same buckets at the worker that takes of them too.

    A ledger that is full has no row for them; then they hold at each worker by itself.
    """
    if not buckets:
        return None, None
    twins: list[Twins] = [
        books.budgets(*bucket)
        or (
            ByteBudget(bucket.rate, bucket.reason, now),
            ByteBudget(bucket.rate, bucket.reason, now),
        )
        for bucket in buckets
    ]
    return Budgets(*(out for out, _ in twins)), Budgets(*(back for _, back in twins))
