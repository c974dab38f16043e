"""Ways to a server: UDP, TCP and TLS, each giving whole STUN and ChannelData messages."""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Protocol

from turn.codec.errors import Malformed
from turn.codec.framing import StreamFramer
from turn.codec.values import Address

READ = 65536
UDP_BUFFER = 1024
"""Messages that wait to be read; what is more is lost, as in a socket's buffer."""


class Wire(Protocol):
    """A way to a server."""

    local: Address
    retransmits: bool
    """Whether what is sent may be lost on the way."""

    async def send(self, data: bytes) -> None:
        """Send a message. :raises OSError: the way is broken."""

    async def receive(self) -> bytes:
        """The next message. :raises OSError: the way is broken; Malformed: it is no message."""

    def close(self) -> None:
        """End it."""


class UdpWire:
    """A UDP socket that speaks to one address."""

    retransmits = True

    def __init__(self, transport: asyncio.DatagramTransport, inbox: "Inbox") -> None:
        self._transport = transport
        self._inbox = inbox
        self.local = Address(*transport.get_extra_info("sockname")[:2])

    @classmethod
    async def open(cls, host: str, port: int) -> "UdpWire":
        """Open one. :raises OSError: there is no route."""
        loop = asyncio.get_running_loop()
        transport, inbox = await loop.create_datagram_endpoint(Inbox, remote_addr=(host, port))
        return cls(transport, inbox)

    async def send(self, data: bytes) -> None:
        """Send a datagram."""
        self._transport.sendto(data)

    async def receive(self) -> bytes:
        """The next datagram. :raises OSError: an ICMP error came instead."""
        return (await self._inbox.next())[0]

    def close(self) -> None:
        """Close the socket."""
        self._transport.close()


class Inbox(asyncio.DatagramProtocol):
    """What arrives at a UDP socket, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[bytes, Address] | OSError] = asyncio.Queue(UDP_BUFFER)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Queue a datagram."""
        if not self._queue.full():
            self._queue.put_nowait((data, Address(*addr[:2])))

    def error_received(self, exc: Exception) -> None:
        """Queue an ICMP error."""
        if isinstance(exc, OSError) and not self._queue.full():
            self._queue.put_nowait(exc)

    async def next(self) -> tuple[bytes, Address]:
        """The next datagram and where it came from. :raises OSError:"""
        item = await self._queue.get()
        if isinstance(item, OSError):
            raise item
        return item


class StreamWire:
    """A TCP or TLS connection."""

    retransmits = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._framer = StreamFramer()
        self._ready: list[bytes] = []
        self.local = Address(*writer.get_extra_info("sockname")[:2])

    @classmethod
    async def open(
        cls, host: str, port: int, tls: ssl.SSLContext | None = None, name: str = ""
    ) -> "StreamWire":
        """Open one. :raises OSError: it is refused, or its TLS is (``ssl.SSLError``).

        :param name: that the certificate should be for.
        """
        server = name if tls else None
        reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=server)
        return cls(reader, writer)

    @property
    def tls(self) -> Any:
        """The ``ssl.SSLObject``; None for plain TCP."""
        return self._writer.get_extra_info("ssl_object")

    async def send(self, data: bytes) -> None:
        """Send a message, padded as a stream needs it (RFC 8656 §12.5)."""
        self._writer.write(data + bytes(-len(data) % 4))
        await self._writer.drain()

    async def receive(self) -> bytes:
        """The next message. :raises ConnectionError: the server has closed the connection."""
        while not self._ready:
            data = await self._reader.read(READ)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._ready += _whole(self._framer.feed(memoryview(data)))
        return self._ready.pop(0)

    def close(self) -> None:
        """Close the connection, whatever is under way."""
        self._writer.transport.abort()


def _whole(frames: Iterable[memoryview]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def unverified() -> ssl.SSLContext:
    """TLS to a server whose certificate is judged by itself, so that the rest can be tried too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


__all__ = ["Inbox", "Malformed", "StreamWire", "UdpWire", "Wire", "unverified"]
