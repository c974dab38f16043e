"""TCP that goes by way of something: an HTTP CONNECT proxy, its clients, a plain forwarder."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.namespaces import looping
from tests.pipes import join

Address = tuple[str, int]
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_ONLY_PORT = 443


@contextmanager
def forwarder(listen: Address, target: Address) -> Iterator[None]:
    """Carry every connection to another address."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(reader, writer, target)

    with _served(listen, accept):
        yield


@contextmanager
def connect_proxy(listen: Address) -> Iterator[None]:
    """An HTTP proxy that knows CONNECT only, and only to port 443 (RFC 9110 §9.3.6)."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n", 1)[0].split()
        host, _, port = target.rpartition(":")
        if method != "CONNECT" or int(port) != _ONLY_PORT:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        greeting = b"HTTP/1.1 200 Connection established\r\n\r\n"
        await _join(reader, writer, (host.strip("[]"), int(port)), greeting)

    with _served(listen, accept):
        yield


class HostLoop(asyncio.SelectorEventLoop):
    """The event loop of a host: it has names of its own, and may have to use an HTTP proxy."""

    def __init__(self, names: dict[str, str], proxy: Address | None) -> None:
        super().__init__()
        self._names = names
        self._proxy = proxy

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:
        """Addresses of a name."""
        return await super().getaddrinfo(self._names.get(host, host), port, **how)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect, or have the proxy do so. :raises ConnectionRefusedError: it does not want to."""
        if self._proxy is None or sock.type is not socket.SOCK_STREAM:
            await super().sock_connect(sock, address)
            return
        await super().sock_connect(sock, self._proxy)
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        place = f"{host}:{address[1]}"
        request = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n"
        await self.sock_sendall(sock, request.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):  # byte by byte: what follows is not ours
            byte = await self.sock_recv(sock, 1)
            if not byte:
                break
            answer += byte
        if b" 200 " not in answer.partition(b"\r\n")[0]:
            raise ConnectionRefusedError(f"the proxy does not connect to {place}")


@contextmanager
def _served(listen: Address, accept: Accept) -> Iterator[None]:
    """Serve in a thread of its own, in the namespace that this thread is in now."""

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await accept(reader, writer)
        writer.transport.abort()

    family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
    sock = socket.create_server(listen, family=family)
    with looping() as start:
        server = start(asyncio.start_server(quietly, sock=sock)).result()
        try:
            yield
        finally:
            start(_closed(server)).result()


async def _closed(server: asyncio.Server) -> None:
    server.close()


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: Address,
    greeting: bytes = b"",
) -> None:
    far_reader, far_writer = await asyncio.open_connection(*target)
    writer.write(greeting)
    try:
        await join((reader, writer), (far_reader, far_writer))
    finally:
        far_writer.transport.abort()
