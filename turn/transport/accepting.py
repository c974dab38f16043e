"""TCP and TLS addresses of the server: who is let in, before and after the handshake."""

import asyncio
import socket
import ssl
import time
from collections.abc import Coroutine

from turn.codec.errors import Malformed
from turn.codec.values import Address
from turn.routes import FiveTuple, Transport
from turn.stats import DropReason
from turn.transport.proxies import introduced
from turn.transport.stream import StreamConnection, StreamShared

BACKLOG = 1024
ACCEPT_PAUSE = 0.1
"""Seconds until the next try where a connection could not be accepted: no descriptors left."""
ALPN = ("stun.turn", "stun.nat-discovery")
"""What a client may ask for by name (RFC 7443 §3); one that asks for nothing is served too."""


HANDSHAKE = 22
"""What TLS begins with (RFC 8446 §5.1), and no message of STUN or TURN (RFC 7983 §7)."""


class StreamListener:
    """A TCP or TLS address of the server."""

    def __init__(
        self,
        shared: StreamShared,
        tls: ssl.SSLContext | None,
        plain: "StreamListener | None" = None,
    ) -> None:
        """Prepare.

        :param plain: whose are the clients that begin without TLS at the same port.
        """
        self.shared = shared
        self.transport = Transport.TLS if tls else Transport.TCP
        self.connections: set[StreamConnection] = set()
        self.tls = tls
        self._plain = plain
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, sock: socket.socket) -> None:
        """Accept connections on a bound socket, which the listener owns from now on."""
        loop = asyncio.get_running_loop()
        if self.tls is None and not self.shared.proxies:
            self._server = await loop.create_server(
                lambda: StreamConnection(self), sock=sock, backlog=BACKLOG
            )
        else:
            sock.listen(BACKLOG)
            self._socket = sock
            self._spawn(self._accept(sock))

    async def _accept(self, listening: socket.socket) -> None:
        """Accept TLS clients, and those that proxies bring."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, source = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            client = Address(*source[:2])
            if self.shared.proxies.trusts(client.host):
                self._spawn(self._be_introduced(sock, client))
            else:
                self._take_in(sock, client)

    async def _be_introduced(self, sock: socket.socket, proxy: Address) -> None:
        """Hear whom a proxy brings, and take it in."""
        try:
            async with asyncio.timeout(self.shared.strangers.timeout):
                client = await introduced(sock)
        except (OSError, EOFError, Malformed):
            self.shared.stats.drop(DropReason.NO_PROXY_HEADER)
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise
        else:
            self._take_in(sock, client or proxy)

    def _take_in(self, sock: socket.socket, client: Address) -> None:
        """Count a client before its handshake, the dearest thing to do."""
        refused = self._refusal(client.host)
        if refused is None:
            self._spawn(self._shake_hands(sock, client))
        else:
            self.shared.stats.drop(refused)
            sock.close()

    def _refusal(self, host: str) -> DropReason | None:
        """Count a connection of this address in; why not, where it is not."""
        if not self.shared.strangers.enter(host):
            return DropReason.TOO_MANY_CONNECTIONS
        if self.tls is None or self._plain or self._may_shake_hands(host):
            return None
        self.shared.strangers.leave(host)
        return DropReason.TOO_MANY_HANDSHAKES

    def _may_shake_hands(self, host: str) -> bool:
        return self.shared.handshakes.allow(host, time.monotonic())

    async def _shake_hands(self, sock: socket.socket, client: Address) -> None:
        connection = None
        timeout = self.shared.strangers.timeout
        try:
            listener = await self._meant(sock, client.host) if self._plain else self
            connection = made = StreamConnection(listener, stranger=True, source=client)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: made,
                sock,
                ssl=listener.tls,
                ssl_handshake_timeout=timeout if listener.tls else None,
            )
        except OSError:  # no TLS, too slow, or gone
            pass
        finally:
            if connection is None:
                sock.close()
            if connection is None or not connection.began:
                self.shared.strangers.leave(client.host)

    async def _meant(self, sock: socket.socket, host: str) -> "StreamListener":
        """Whose a client is, where a port is for both. :raises OSError: nobody's."""
        async with asyncio.timeout(self.shared.strangers.timeout):
            first = await _first_byte(sock)
        if self._plain and first != HANDSHAKE:
            return self._plain
        if not self._may_shake_hands(host):
            self.shared.stats.drop(DropReason.TOO_MANY_HANDSHAKES)
            raise ConnectionAbortedError
        return self

    async def take_over(self, sock: socket.socket, client: FiveTuple) -> None:
        """Serve a client whose connection another worker has; ``sock`` leads there."""
        connection = StreamConnection(self, client=client)
        try:
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: connection, sock=sock)
        except OSError:
            sock.close()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sweep(self) -> None:
        """Look for connections without a purpose; to be called every few seconds."""
        for connection in self.connections:
            connection.sweep()

    async def stop(self) -> None:
        """Stop accepting and close every connection."""
        if self._server:
            self._server.close()
        await asyncio.sleep(0)  # a handshake that is not under way yet could not close its socket
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket:
            self._socket.close()
        for connection in list(self.connections):
            connection.abort()
        if self._server:
            await self._server.wait_closed()


async def _first_byte(sock: socket.socket) -> int:
    """What a client begins with; it stays to be read. 0: the client is gone.

    :raises OSError: its connection is broken.
    """
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(sock, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(sock)
    return int.from_bytes(sock.recv(1, socket.MSG_PEEK))
