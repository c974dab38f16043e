"""Keys that tokens gave to holders of allocations (RFC 7635), asked of the workers that have these.

A client claims a connection with a peer without its token, over a connection of its own (RFC 6062),
which may come to any worker: there nobody knows what protects its request.
"""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

from turn.allocation.elsewhere import Granted
from turn.auth.third_party import Grant
from turn.codec.errors import StunError
from turn.workers.loans import Send
from turn.workers.messages import AskKey

MOST_AT_ONCE = 16
"""Questions of one client address: they are asked before anything is proved."""
PATIENCE = 5.0
"""Seconds; far longer than an answer takes, shorter than a client waits."""


class Asked(NamedTuple):
    """A question that waits for its answer."""

    holding: int
    host: str
    done: Granted
    patience: asyncio.TimerHandle


class Keys:
    """What this worker asks the others for."""

    def __init__(self, worker: int, numbers: Iterator[int], send: Send) -> None:
        """Prepare to ask. :param numbers: of questions, as those of ``Others``."""
        self._worker = worker
        self._numbers = numbers
        self._send = send
        self._asked: dict[int, Asked] = {}

    def ask(self, connection: int, host: str, done: Granted) -> None:
        """Have a key told (``elsewhere.Streams``). :raises StunError: 508."""
        if sum(asked.host == host for asked in self._asked.values()) >= MOST_AT_ONCE:
            raise StunError(508)
        number, holding = next(self._numbers), connection >> 24
        timer = asyncio.get_running_loop().call_later(PATIENCE, self.answered, number, None)
        self._asked[number] = Asked(holding, host, done, timer)
        self._send(AskKey(number, self._worker, holding, connection))

    def answered(self, number: int, grant: Grant | None) -> None:
        """The answer has come, or comes too late."""
        asked = self._asked.pop(number, None)
        if asked is not None:
            asked.patience.cancel()
            asked.done(grant)

    def worker_gone(self, worker: int) -> None:
        """What was asked of it, nobody knows."""
        for number in [n for n, asked in self._asked.items() if asked.holding == worker]:
            self.answered(number, None)
