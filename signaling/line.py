"""A session's requests, one after the other, beside the reading of its socket.

Where a broker has to be waited for, whoever reads the socket goes on reading: a ping that comes
behind a request is answered before it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

MOST_WAITING = 16
"""Requests that are read ahead of the one that is handled; then the socket is read no further."""


class Line:
    """Handles what is put into it in that order. Costs nothing while nothing waits."""

    def __init__(self, handle: Callable[..., Awaitable[None]]) -> None:
        self._handle = handle
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    async def put(self, request: tuple[Any, ...]) -> None:
        """Have a request handled; returns at once, unless too many wait.

        :param request: the handler's arguments.
        :raises Exception: what the handling of an earlier one raised.
        """
        self._waiting.append(request)
        if self._task is None or self._task.done():
            if self._task is not None:
                self._task.result()
            self._task = asyncio.create_task(self._work())
        while len(self._waiting) > MOST_WAITING and not self._task.done():
            self._moved.clear()
            await self._moved.wait()

    async def finish(self, *, all_of_it: bool) -> None:
        """Wait for the request that is handled now, and for those behind it where they count.

        :raises Exception: what the handling of one raised.
        """
        if not all_of_it:
            self._waiting.clear()
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._handle(*self._waiting.popleft())
                self._moved.set()
        finally:
            self._moved.set()
