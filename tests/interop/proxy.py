"""A network that fails: a TCP proxy that cuts WebSockets where it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.pipes import listening


class Proxy:
    """Carries every connection; counts what passes on those that are WebSockets."""

    def __init__(self, host: str, port: int) -> None:
        self.url = ""
        self.cuts = 0
        self.websockets = 0
        """How many there were; who comes back makes another."""
        self._target = (host, port)
        self._cut_at = 0
        self._passed = 0
        self._sockets: set[asyncio.StreamWriter] = set()

    def cut_after(self, pieces: int) -> None:
        """Lose the piece after so many more, either way, and the connection with it; once."""
        self._cut_at, self._passed = pieces, 0

    def cut(self) -> None:
        """Reset every WebSocket now."""
        self.cuts += 1
        for writer in self._sockets:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection from beginning to end."""
        there = None
        with suppress(OSError):
            first = await reader.read(65536)
            far_reader, there = await asyncio.open_connection(*self._target)
            there.write(first)
            is_socket = first.startswith(b"GET /ws")
            if is_socket:
                self.websockets += 1
                self._sockets |= {writer, there}
            await asyncio.gather(
                self._carry(reader, there, is_socket), self._carry(far_reader, writer, is_socket)
            )
        for end in (writer, there):
            if end:
                self._sockets.discard(end)
                end.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, counted: bool
    ) -> None:
        while data := await source.read(65536):
            if counted and self._cut_at:
                self._passed += 1
                if self._passed > self._cut_at:
                    self._cut_at = 0
                    self.cut()
                    return
            to.write(data)
            await to.drain()
        with suppress(OSError):
            to.write_eof()


@asynccontextmanager
async def proxy(url: str) -> AsyncIterator[Proxy]:
    """Start one in front of ``http://HOST:PORT``."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    made = Proxy(host, int(port))
    try:
        async with listening(made.accept) as made.url:
            yield made
    finally:
        made.cut()
