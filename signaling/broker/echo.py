"""Which wake-ups of this node are caused by its own scripts: what has been handed on, and what not.

A script's answer comes by one connection, and what it causes here by another. Only with both
is it known that what was published has reached the sockets of this node; and where the answer
is lost, a wake-up tells that it was done.
"""

import asyncio
import itertools
from types import TracebackType
from typing import Self

from signaling.broker.base import Unavailable


class Echo:
    """What is heard of one script. Used as ``with echoes.expect() as echo``."""

    __slots__ = ("_echoes", "_waiter", "_wanted", "heard", "ticket")

    def __init__(self, echoes: "Echoes", ticket: str) -> None:
        self.ticket = ticket
        self.heard = 0
        self._echoes = echoes
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self._echoes.expected[self.ticket] = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._echoes.expected[self.ticket]

    async def all(self, wanted: int) -> None:
        """Wait for so many wake-ups. :raises Unavailable: they will not come any more."""
        if self.heard < wanted:
            self._wanted = wanted
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def hear(self) -> None:
        """One has come."""
        self.heard += 1
        if self.heard >= self._wanted:
            self._end(None)

    def fail(self) -> None:
        """None will come any more."""
        self._end(Unavailable("Redis went away"))

    def _end(self, error: Unavailable | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            if error is None:
                self._waiter.set_result(None)
            else:
                self._waiter.set_exception(error)


class Echoes:
    """Those of all scripts that run."""

    def __init__(self) -> None:
        self.expected: dict[str, Echo] = {}
        self._tickets = itertools.count(1)

    def expect(self) -> Echo:
        """Before a script is called; it is told the ticket."""
        return Echo(self, str(next(self._tickets)))

    def hear(self, ticket: str) -> None:
        """A wake-up of the script with this ticket has come."""
        echo = self.expected.get(ticket)
        if echo is not None:
            echo.hear()

    def fail(self) -> None:
        """The connection is closed."""
        for echo in self.expected.values():
            echo.fail()
