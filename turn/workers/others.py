"""The other workers, as one of them sees them: ports that they hold for clients who came here."""

import asyncio
import itertools
import socket
from collections.abc import Callable

from msgspec import Struct

from turn.allocation.books import Books, Want
from turn.allocation.elsewhere import Fetched
from turn.allocation.model import Owner, Relay
from turn.bandwidth import ALL, Key
from turn.workers.messages import Claim

PATIENCE = 5.0
"""Seconds; far longer than an answer takes, shorter than a client goes on asking (39.5 s)."""


class Others:
    """Asks them (``Elsewhere``)."""

    def __init__(
        self, worker: int, workers: int, books: Books, send: Callable[[Struct], None]
    ) -> None:
        self._worker = worker
        self._workers = workers
        self._books = books
        self._send = send
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[Fetched, Key, asyncio.TimerHandle]] = {}

    def holds(self, token: bytes) -> bool:
        """Whether one of them made this token: it begins with the number of who did."""
        return token[:1] != bytes([self._worker]) and token[0] < self._workers

    def fetch(self, token: bytes, owner: Owner, done: Fetched) -> None:
        """Have a port handed over.

        Its share of the user's quota is counted at both until it is here: never at none.
        """
        number, user = next(self._numbers), ("user", owner.user)
        self._books.take((Want(user, 1), Want(ALL, 1)))
        timer = asyncio.get_running_loop().call_later(PATIENCE, self.answered, number, None)
        self._waiting[number] = (done, user, timer)
        self._send(Claim(number, self._worker, token[0], token, *owner))

    def answered(self, number: int, relay: Relay | None) -> None:
        """The answer to a claim has come, or comes too late."""
        found = self._waiting.pop(number, None)
        if found is None:
            if relay is not None:
                relay.close()
            return
        done, user, timer = found
        timer.cancel()
        done(relay)
        self._books.give({user: 1, ALL: 1})


def as_socket(descriptors: list[int]) -> socket.socket | None:
    """The socket that came with a message, if one did."""
    if not descriptors:
        return None
    sock = socket.socket(fileno=descriptors[0])
    sock.setblocking(False)
    return sock
