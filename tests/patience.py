"""Waiting for what will come, so long that only a fault makes a test end without it.

A bound on waiting costs nothing where all is well, and on a busy machine a second is nothing. What
a test promises about time it measures, with a bound of its own.
"""

import asyncio
import time
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds."""


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens a moment later. :raises TimeoutError: it does not."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - things are asked as they are, without hooks
            await asyncio.sleep(0.01)


def wait_until(condition: Callable[[], object]) -> None:
    """The same where there is no event loop. :raises TimeoutError:"""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
