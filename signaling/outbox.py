"""A socket's outbox: bounded, and written by as few system calls as there can be."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from aiohttp import web

from signaling.backlog import Backlog
from signaling.protocol.errors import CloseCode
from signaling.stats import Stats

WRITTEN_AT_ONCE = 65536
"""Bytes after which a reader that is slow has to show that it reads at all."""
MOST_IN_CONTROL = 125
"""Bytes in a control frame (RFC 6455 §5.5)."""
FAREWELL = 2.0
"""Seconds that a client has to answer our close frame."""


class SocketSettings(NamedTuple):
    """What a socket is told of the settings; times in seconds."""

    heartbeat: float
    hello_timeout: float
    write_timeout: float
    max_message_bytes: int
    max_queued_messages: int
    max_queued_bytes: int
    max_unauthenticated_per_address: int
    max_connections: int


class Socket:
    """One connection: what the hub sends waits here until the client has read what was before."""

    def __init__(
        self,
        ws: web.WebSocketResponse,
        settings: SocketSettings,
        stats: Stats,
        *,
        native: bool = True,
        backlog: Backlog | None = None,
    ) -> None:
        """Take a socket over. :param backlog: holds what waits for all sockets."""
        self.native = native
        self.on_idle: Callable[[], None] | None = None
        """Called when everything that was queued has been written."""
        self.reason = ""
        """Why it ended, where we ended it."""
        self._ws = ws
        self._loop = asyncio.get_running_loop()
        self._write_timeout = settings.write_timeout
        self._most_messages = settings.max_queued_messages
        self._most_bytes = settings.max_queued_bytes
        self._stats = stats
        self._queue: list[tuple[bytes, float | None]] = []
        self._queued_bytes = 0
        self._backlog = backlog or Backlog()
        self._uncounted = 0
        """Frames at the head of the queue that the limits do not count."""
        self._flushes = False
        """Whether ``_flush`` is about to run."""
        self._end: tuple[CloseCode, str] | None = None
        self._farewell: asyncio.TimerHandle | None = None
        """Runs from our close frame on; then the client is not waited for any more."""
        self._waiter: asyncio.Task[None] | None = None
        """Waits for a reader that is slow, and for the end; most sockets never need it."""

    def begin(self, frames: Sequence[bytes]) -> None:
        """Queue the first frames: a welcome, and all that the session missed.

        A mailbox has bounded these already. Counted here once more, one that is full would cut
        each socket that comes for it, and could never be had.
        """
        self._queue.extend((frame, None) for frame in frames)
        self._uncounted = len(frames)
        if not self._flushes:
            self._flush_soon()

    def send(self, frame: bytes, since: float | None = None) -> None:
        """Queue a text frame; over the limits the socket is cut and the session may resume.

        :param since: of an event, when it came to this node (monotonic time).
        """
        if self._end is not None:
            return
        size = len(frame)
        full = len(self._queue) - self._uncounted >= self._most_messages
        if full or not self._backlog.put(size, self._queued_bytes, self._most_bytes):
            self.close(CloseCode.SLOW_READER, "the client reads too slowly")
            return
        self._queued_bytes += size
        self._queue.append((frame, since))
        if not self._flushes:
            self._flush_soon()

    def pong(self, data: bytes) -> None:
        """Answer a ping (RFC 6455 §5.5.3), where the client reads what it is sent."""
        transport = self._transport
        if self._end is None and transport is not None and not (self._ws.closed or self._paused):
            transport.write(bytes((0x8A, len(data))) + data)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the socket soon, without what is still queued where it reads too slowly."""
        if self._end is None:
            self._end = (code, reason)
            self.reason = code.name.lower()
            self._wait()

    async def finish(self) -> None:
        """Let the last frames out, where there is somebody to read them."""
        if self._waiter is not None:
            if self.reason:
                await asyncio.wait({self._waiter}, timeout=self._write_timeout)
            self._waiter.cancel()
            await asyncio.wait({self._waiter})
        self._end = self._end or (CloseCode.NORMAL, "")  # what is still sent goes nowhere
        self._take_out(len(self._queue), sum(len(frame) for frame, _ in self._queue))

    @property
    def said_goodbye(self) -> bool:
        """Whether our close frame has gone out: until the client's comes, what comes is read."""
        return self._farewell is not None

    def end(self) -> None:
        """Both have said goodbye, or one has waited long enough: let the connection go."""
        if self._farewell is not None:
            self._farewell.cancel()
            transport = self._transport
            if transport is not None:
                transport.close()

    # Inside --------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        """Have written at once what is queued until then.

        Two turns of the loop: in the first those handle their messages whose sockets were read
        together with this one, and in the second those that were read meanwhile.
        """
        self._flushes = True
        self._loop.call_soon(self._loop.call_soon, self._flush)

    def _flush(self) -> None:
        """Write what is queued, by one system call: it costs more than all else for a message."""
        self._flushes = False
        request = self._ws._req  # noqa: SLF001 - aiohttp writes one frame at a time
        if request is None or request.transport is None or self._ws.closed or self._too_slow:
            return  # whoever reads will find out
        if not request.protocol.writing_paused:
            request.transport.write(b"".join(self._take()))
        if request.protocol.writing_paused or self._queue:
            self._wait()
        elif self.on_idle is not None:
            self.on_idle()

    def _take(self) -> list[bytes]:
        """Frames from the head of the queue, with their headers, as many as are written at once."""
        parts: list[bytes] = []
        delays: list[float] = []
        size, now = 0, time.monotonic()
        for frame, since in self._queue:
            if size >= WRITTEN_AT_ONCE:
                break
            length = len(frame)
            size += length
            parts += (_header(length), frame)
            if since is not None:
                delays.append(now - since)
        self._stats.delivery.observe(delays)
        self._take_out(len(parts) // 2, size)
        return parts

    def _take_out(self, count: int, size: int) -> None:
        """Frames of the queue's head, and their bytes: the limits stop to count what they did."""
        if self._uncounted:
            uncounted = self._queue[: min(count, self._uncounted)]
            self._uncounted -= len(uncounted)
            size -= sum(len(frame) for frame, _ in uncounted)
        del self._queue[:count]
        self._queued_bytes -= size
        self._backlog.take(size)

    def _wait(self) -> None:
        if self._waiter is None or self._waiter.done():
            self._waiter = asyncio.create_task(self._wait_and_close())

    async def _wait_and_close(self) -> None:
        """Write the rest as it is read; then close, where it is to end."""
        try:
            while not self._too_slow and (self._queue or self._paused):
                async with asyncio.timeout(self._write_timeout):
                    await self._request.protocol._drain_helper()  # noqa: SLF001 - not public
                self._flush()
            if self._end is not None:
                # Not by aiohttp, which closes the connection at once where something is read from
                # it: with more of the client's on its way that is a reset, and the client may hear
                # of no close code, and come back.
                transport = self._request.transport
                assert transport is not None
                transport.write(_close_frame(*self._end))
                self._farewell = self._loop.call_later(FAREWELL, self._abort)
        except (TimeoutError, ConnectionError, RuntimeError):
            # RuntimeError: aiohttp's word for a write after the peer's close.
            self.reason = self.reason or "write_failed"
            self._abort()

    @property
    def _request(self) -> web.BaseRequest:
        """What the socket came from. :raises ConnectionError: it is closed."""
        request = self._ws._req  # noqa: SLF001
        if request is None or request.transport is None or self._ws.closed:
            raise ConnectionResetError
        return request

    @property
    def _paused(self) -> bool:
        return bool(self._request.protocol.writing_paused)

    @property
    def _too_slow(self) -> bool:
        return self._end is not None and self._end[0] is CloseCode.SLOW_READER

    def _abort(self) -> None:
        transport = self._transport
        if transport is not None:
            transport.abort()

    @property
    def _transport(self) -> asyncio.Transport | None:
        request = self._ws._req  # noqa: SLF001 - aiohttp has no public way to drop a connection
        return request.transport if request is not None else None


@lru_cache(maxsize=1024)
def _header(size: int) -> bytes:
    """What stands before a text of a server: one frame, whole, not masked (RFC 6455 §5.2)."""
    if size < 126:
        return bytes((0x81, size))
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big")
    return b"\x81\x7f" + size.to_bytes(8, "big")


def _close_frame(code: CloseCode, reason: str) -> bytes:
    """A server's close frame (RFC 6455 §5.5.1)."""
    payload = (int(code).to_bytes(2, "big") + reason.encode())[:MOST_IN_CONTROL]
    return bytes((0x88, len(payload))) + payload
