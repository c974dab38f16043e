"""A TCP connection that a test may cut, or hold up without closing it."""

import asyncio
from contextlib import suppress

from tests.pipes import until_one_ends

TURNS = 5
"""Of the event loop, in which a connection goes from accepted to served."""


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
        for _ in range(TURNS):  # a connection may have been accepted just now
            await asyncio.sleep(0)
        self.cut()
        await asyncio.gather(*self._pipes, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted is closed in the next turn

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

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Made here, so that none is missed; one that is cut before it begins would close nothing.
        if not self._whole:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        task.add_done_callback(lambda _: writer.transport.abort())
        self._pipes.add(task)
        task.add_done_callback(self._pipes.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            far = await self._connect()
            try:
                await self._both(reader, writer, *far)
            finally:
                far[1].transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Reach the other end. :raises OSError: it is not there."""
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        await until_one_ends(self._pass_on(reader, far_writer), self._pass_on(far_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
