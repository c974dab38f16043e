"""Live events over HTTP: ``text/event-stream`` (WHATWG HTML §9.2), bounded in every direction."""

import asyncio
from collections.abc import Collection
from contextlib import suppress

import msgspec
from aiohttp import web

from turn.admin.guard import HEADERS, ApiError
from turn.admin.journal import Event, Journal

MOST_WATCHERS = 16
HEARTBEAT = 15.0
"""Seconds of silence after which a comment shows that the stream lives."""
WRITE_PATIENCE = 10.0
"""Seconds that a watcher may take to read; then it is cut, and may come back for what it missed."""


class EventStream:
    """Serves the journal's events as they happen."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def serve(self, request: web.Request, kinds: Collection[str]) -> web.StreamResponse:
        """Stream until the watcher goes.

        :param kinds: of events; none: all.
        :raises ApiError: 429, as many watch as may.
        """
        if self._journal.watchers >= MOST_WATCHERS:
            raise ApiError(429, f"{MOST_WATCHERS} streams are open; close one")
        last = request.headers.get("Last-Event-ID", "")
        after = int(last[:15]) if last.isdecimal() else None
        response = web.StreamResponse(headers={**HEADERS, "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        with self._journal.watch(after) as watcher:
            await response.prepare(request)
            await response.write(b": icebroker\n\n")
            with suppress(TimeoutError, ConnectionError):
                while self._journal.on:
                    events, lost = await watcher.get(HEARTBEAT)
                    meant = [event for event in events if not kinds or event.kind in kinds]
                    async with asyncio.timeout(WRITE_PATIENCE):
                        await response.write(_text(meant, lost))
        return response


def _text(events: list[Event], lost: int) -> bytes:
    lines = [b'event: lost\ndata: {"count": %d}\n\n' % lost] if lost else []
    for event in events:
        head = f"id: {event.number}\nevent: {event.kind}\ndata: ".encode()
        lines.append(head + msgspec.json.encode(event) + b"\n\n")
    return b"".join(lines) or b": still here\n\n"
