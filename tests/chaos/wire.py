"""A TCP connection that a test may cut, or hold up without closing it."""

import asyncio
from contextlib import suppress


class Wire:
    """Listens on a port and passes everything on to another one."""

    def __init__(self, target: int) -> None:
        """Prepare. :param target: the port on loopback that it leads to."""
        self.port = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._whole = True
        self._passing = asyncio.Event()
        self._passing.set()
        self._pipes: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; ``port`` says where."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End it."""
        self.cut()
        assert self._server is not None
        self._server.close()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection, and each that comes."""
        self._whole = False
        for pipe in self._pipes:
            pipe.cancel()

    def hold(self) -> None:
        """Pass nothing on, with all connections open."""
        self._passing.clear()

    def mend(self) -> None:
        """Be whole again; what was held up goes on."""
        self._whole = True
        self._passing.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)
        with suppress(OSError, asyncio.CancelledError):
            if self._whole:
                far = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    await self._both(reader, writer, *far)
                finally:
                    far[1].transport.abort()
        writer.transport.abort()

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._pass_on(reader, far_writer)),
            asyncio.create_task(self._pass_on(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
