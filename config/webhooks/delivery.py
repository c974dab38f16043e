"""Webhooks that tell an application's back end what has happened, at least once.

What is to be told waits in a queue, put there in the step in which it happened, until the back
end has taken it.
"""

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import structlog
from msgspec import Raw

from config.webhooks.post import Poster, Unreachable, shown
from config.webhooks.waiting import Away, Queue, Queued

LOOK = 0.25
"""Seconds between looks at what is due."""
MOST_AT_ONCE = 32
FIRST_DELAY, LONGEST_DELAY = 1.0, 300.0
"""Seconds before the second and the later tries, before jitter."""
GIVE_UP = 8 * 3600.0
"""Seconds after which an event is not told any more."""
LAST_WORDS = 2.0
"""Seconds that a process that stops has for what is due."""
LATEST = 253_402_300_799_999
"""The last Unix time in ms that has a date: the end of 9999."""


class _Event(msgspec.Struct):
    type: str
    at: Annotated[int, msgspec.Meta(ge=0, le=LATEST)]
    data: Raw


class Delivery:
    """Delivers events until it is stopped."""

    def __init__(
        self, queue: Queue, poster: Poster, url: str, counts: "Counter[str] | dict[str, int]",
        *, together: str, service: str, last_words: float = LAST_WORDS,
    ) -> None:  # fmt: skip
        """Prepare to deliver.

        :param counts: of tries: ``delivered``, ``failed``, ``given_up``.
        :param together: the key of ``data`` that events of one story share; they come in order.
        :param service: whose log it is.
        """
        self.url = url
        self._queue = queue
        self._poster = poster
        self._counts = counts
        self._together = together
        self._log = structlog.get_logger(service)
        self._last_words = last_words
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._failing = False

    def start(self) -> None:
        """Begin to deliver."""
        self._ending.clear()
        self._task = asyncio.create_task(self._run())

    async def stop(self, *, now: bool = False) -> None:
        """End; what is due gets a last chance, the rest stays in the queue.

        :param now: without last words.
        """
        if self._task is None:
            return
        self._ending.set()
        await asyncio.wait({self._task}, timeout=0 if now else self._last_words)
        self._task.cancel()
        await asyncio.wait({self._task})
        self._task = None

    async def deliver(self) -> int:
        """Try what is due, once; gives how many events that were. :raises Away:"""
        # Whoever takes an event has it for this long; then another process may.
        lease = 2 * self._poster.timeout + 5
        due = await self._queue.take_events(MOST_AT_ONCE, lease)
        stories: dict[bytes, list[tuple[Queued, _Event]]] = {}
        for queued in due:
            try:
                event, story = self._read(queued)
            except (ValueError, RecursionError) as error:  # of msgspec, too
                await self._give_up(queued, f"it means nothing: {error}")
            else:
                stories.setdefault(story, []).append((queued, event))
        # In order within a story, as far as each is taken at its first try.
        await asyncio.gather(*map(self._deliver_in_order, stories.values()))
        return len(due)

    async def _run(self) -> None:
        log = self._log
        while True:
            ending, count = self._ending.is_set(), 0
            try:
                count = await self.deliver()
            except Away:
                pass  # what is due stays so
            except Exception:  # a fault of ours must not end the deliveries for good
                log.exception("webhooks could not be delivered")
            if count == MOST_AT_ONCE:
                continue
            if ending:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._ending.wait()

    async def _deliver_in_order(self, events: list[tuple[Queued, _Event]]) -> None:
        for queued, event in events:
            await self._deliver(queued, event)

    async def _deliver(self, queued: Queued, event: _Event) -> None:
        failure = await self._post(queued.id, event)
        self._tell(failure)
        if failure is None:
            self._counts["delivered"] += 1
            await self._queue.end_events([queued.id])
        elif time.time() - event.at / 1000 > GIVE_UP:
            await self._give_up(queued, failure, type=event.type)
        else:
            self._counts["failed"] += 1
            longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(queued.tries - 1, 10))
            delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, no secret
            await self._queue.retry_event(queued.id, delay)

    async def _give_up(self, queued: Queued, reason: str, **more: str) -> None:
        self._counts["given_up"] += 1
        self._log.error("a webhook was given up", id=queued.id, **more, reason=reason)
        await self._queue.end_events([queued.id])

    async def _post(self, event_id: str, event: _Event) -> str | None:
        """Tell the back end; what went wrong, if anything."""
        at = datetime.fromtimestamp(event.at / 1000, UTC).isoformat(timespec="milliseconds")
        body = msgspec.json.encode(
            {"type": event.type, "timestamp": at.replace("+00:00", "Z"), "data": event.data}
        )
        try:
            answer = await self._poster.post(self.url, event_id, body)
        except Unreachable as error:
            return str(error)
        return None if answer.ok else f"status {answer.status}"

    def _tell(self, failure: str | None) -> None:
        """Log that it begins or ends to fail, not each time that it does."""
        url = shown(self.url)
        if failure is not None and not self._failing:
            self._log.warning("a webhook failed; it is tried again", url=url, reason=failure)
        elif failure is None and self._failing:
            self._log.info("webhooks are taken again", url=url)
        self._failing = failure is not None

    def _read(self, queued: Queued) -> tuple[_Event, bytes]:
        """What happened, and the story that it is of. :raises ValueError: it was no event of ours.

        What was kept has been on a disk, or with Redis.
        """
        if not (queued.id.isascii() and queued.id.isprintable()):
            raise ValueError("its id cannot be in a header")
        event = msgspec.json.decode(queued.event, type=_Event)
        found = msgspec.json.decode(event.data, type=dict[str, Raw]).get(self._together)
        return event, bytes(found) if found else b""
