"""A relay without signaling beside it hears and tells through Redis whom an operator revoked."""

from collections.abc import Callable

from config.schema import RedisSettings
from signaling.broker.base import Revocation, Unavailable
from signaling.broker.choose import choose_broker
from signaling.protocol.errors import CloseCode


class RevocationWatch:
    """Listens as a node without sessions does; what it misses while Redis is away comes later."""

    def __init__(self, redis: RedisSettings, heed: Callable[[str, float, float], object]) -> None:
        """Prepare to listen. :param heed: takes user, until and spent of each revocation."""
        # What it tells the rooms of whom it revokes is for sessions whose limits it does not know,
        # and for webhooks that nodes may have.
        self._broker = choose_broker(redis, 1 << 20, 1 << 30, webhooks=None)
        self._heed = heed

    async def start(self) -> None:
        """Begin to listen; also where Redis is away."""
        await self._broker.start(self)

    async def drain(self, _: float) -> None:
        """Nothing: whoever is revoked now has to be heard of too."""

    async def stop(self) -> None:
        """Listen no more."""
        await self._broker.stop()

    async def spread_revocation(self, user: str, until: float) -> bool:
        """Tell every node and relay, also those that come later.

        :param until: Unix time; 0: it is taken back.
        :raises ConnectionError: Redis is away.
        """
        try:
            await self._broker.revoke(Revocation(user, until, spent=0.0))
        except Unavailable as error:
            raise ConnectionError(f"the broker is away: {error}") from None
        return True

    def revoked(self, revocation: Revocation) -> None:
        """Something was revoked."""
        self._heed(revocation.user, revocation.until, revocation.spent)

    def deliver(self, session: str, seq: int, frame: bytes) -> None:
        """Nothing: there are no sessions here."""

    def cut(self, session: str, code: CloseCode) -> None:
        """Nothing: there are no sessions here."""
