"""Peers: UDP sockets, and those of TCP allocations (RFC 6062) with what clients read of them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from tests.patience import PATIENCE
from turn.codec import registry
from turn.codec.values import Address

TCP = (registry.REQUESTED_TRANSPORT, 6)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextmanager
def udp_peer() -> Iterator[socket.socket]:
    """A socket on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        yield peer


class Peer:
    """A TCP server that keeps its connections."""

    address: Address

    def __init__(self) -> None:
        self.streams: asyncio.Queue[Streams] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self._left = False

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection in."""
        if self._left:  # it was under way
            writer.transport.abort()
            return
        self._writers.append(writer)
        await self.streams.put((reader, writer))

    async def next(self) -> Streams:
        """The next connection."""
        async with asyncio.timeout(PATIENCE):
            return await self.streams.get()

    async def leave(self) -> None:
        """Close every connection."""
        self._left = True
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@asynccontextmanager
async def listening() -> AsyncIterator[Peer]:
    """A peer that can be connected to."""
    peer = Peer()
    server = await asyncio.start_server(peer.accept, "127.0.0.1", 0)
    peer.address = Address(*server.sockets[0].getsockname())
    try:
        yield peer
    finally:
        server.close()
        await peer.leave()


async def receive(sock: socket.socket, size: int) -> bytearray:
    """So many bytes, or fewer where the connection ends before."""
    loop, received = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(PATIENCE):
        while len(received) < size:
            part = await loop.sock_recv(sock, 65536)
            if not part:
                break
            received += part
    return received
