"""Webhooks that tell an application's back end what becomes of rooms and peers, at least once.

What is to be told waits in the broker, put there in the step in which it happened, until the back
end has taken it: a node that dies leaves its share to the others.
"""

import asyncio
import random
import time
from contextlib import suppress
from datetime import UTC, datetime

import msgspec
import structlog
from msgspec import Raw

from signaling.broker.base import Broker, Queued, Unavailable
from signaling.stats import Stats
from signaling.webhook import Poster, Unreachable, shown

log = structlog.get_logger("signaling")

LOOK = 0.25
"""Seconds between looks at what is due."""
MOST_AT_ONCE = 32
FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
"""Seconds before the second and the later tries, before jitter."""
GIVE_UP = 8 * 3600.0
"""Seconds after which an event is not told any more."""
LAST_WORDS = 2.0
"""Seconds that a node that stops has for what is due."""


class _Event(msgspec.Struct):
    type: str
    at: int
    data: Raw


class Lifecycle:
    """Delivers events until it is stopped."""

    def __init__(self, broker: Broker, poster: Poster, url: str, stats: Stats) -> None:
        self._broker = broker
        self._poster = poster
        self._url = url
        self._shown = shown(url)
        self._stats = stats
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Begin to deliver."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what is due now gets a last chance, the rest is left to others."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(LAST_WORDS):
                await self.deliver()

    async def deliver(self) -> int:
        """Try what is due, once; gives how many events that were. :raises Unavailable:"""
        # Whoever takes an event has it for this long; then another node may.
        lease = 2 * self._poster.timeout + 5
        due = await self._broker.take_events(MOST_AT_ONCE, lease)
        rooms: dict[bytes, list[tuple[Queued, _Event]]] = {}
        for queued in due:
            event = msgspec.json.decode(queued.event, type=_Event)
            rooms.setdefault(_room_of(event), []).append((queued, event))
        # In order within a room, as far as each is taken at its first try.
        await asyncio.gather(*map(self._deliver_in_order, rooms.values()))
        return len(due)

    async def _run(self) -> None:
        while True:
            count = 0
            try:
                count = await self.deliver()
            except Unavailable:
                pass  # what is due stays so
            except Exception:  # a fault of ours must not end the deliveries for good
                log.exception("webhooks could not be delivered")
            if count < MOST_AT_ONCE:
                await asyncio.sleep(LOOK)

    async def _deliver_in_order(self, events: list[tuple[Queued, _Event]]) -> None:
        for queued, event in events:
            await self._deliver(queued, event)

    async def _deliver(self, queued: Queued, event: _Event) -> None:
        failure = await self._post(queued.id, event)
        self._tell(failure)
        if failure is None:
            self._stats.webhooks["delivered"] += 1
            await self._broker.end_events([queued.id])
        elif time.time() - event.at / 1000 > GIVE_UP:
            self._stats.webhooks["given_up"] += 1
            log.error("a webhook was given up", id=queued.id, type=event.type, reason=failure)
            await self._broker.end_events([queued.id])
        else:
            self._stats.webhooks["failed"] += 1
            longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(queued.tries - 1, 10))
            delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, no secret
            await self._broker.retry_event(queued.id, delay)

    async def _post(self, event_id: str, event: _Event) -> str | None:
        """Tell the back end; what went wrong, if anything."""
        at = datetime.fromtimestamp(event.at / 1000, UTC).isoformat(timespec="milliseconds")
        body = msgspec.json.encode(
            {"type": event.type, "timestamp": at.replace("+00:00", "Z"), "data": event.data}
        )
        try:
            answer = await self._poster.post(self._url, event_id, body)
        except Unreachable as error:
            return str(error)
        return None if answer.ok else f"status {answer.status}"

    def _tell(self, failure: str | None) -> None:
        """Log that it begins or ends to fail, not each time that it does."""
        if failure is not None and not self._failing:
            log.warning("a webhook failed; it is tried again", url=self._shown, reason=failure)
        elif failure is None and self._failing:
            log.info("webhooks are taken again", url=self._shown)
        self._failing = failure is not None


class _Room(msgspec.Struct):
    room: Raw


def _room_of(event: _Event) -> bytes:
    return bytes(msgspec.json.decode(event.data, type=_Room).room)
