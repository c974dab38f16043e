"""When things may happen: how fast to send, and how long to wait before dialling again."""

import asyncio
import random
import time

FIRST_DELAY, LONGEST_DELAY = 0.25, 15.0
"""Seconds before the first and the later tries to reconnect, before jitter."""


class Pacer:
    """Keeps below the server's rate limit, so that no message of ours is ever refused for it."""

    SHARE = 0.8
    """Of what the server allows."""

    def __init__(self, rate: float, burst: float) -> None:
        """Begin with a whole burst. :param rate: messages a second."""
        self._rate = rate * self.SHARE
        self._burst = self._tokens = burst * self.SHARE
        self._updated = time.monotonic()

    async def wait(self) -> None:
        """Wait until one more message may be sent."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


def jittered(delay: float) -> float:
    """Seconds to wait, so that the clients of a server that restarts do not come back as one."""
    return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, no secret


def before(deadline: float) -> float:
    """Seconds after which to go, where the server ends in ``deadline``: not all at once either."""
    return deadline * random.uniform(0.1, 0.9)  # noqa: S311 - spreads load, no secret
