"""TCP allocations on the wire: relayed addresses that listen, and connections with peers."""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import cast

from turn.allocation.connections import Connected
from turn.allocation.model import Gate
from turn.bandwidth import SMALLEST, Budgets
from turn.codec.values import Address
from turn.routes import Buffer, ClientRoutes, Endpoint
from turn.stats import Stats

CONNECT_TIMEOUT = 30.0
"""Seconds (RFC 6062 §5.2: at least 30)."""
BACKLOG = 16
ACCEPT_PAUSE = 0.1
"""Seconds until the next try where a peer could not be accepted: no descriptors left."""
MOST_UNSENT_BYTES = 1 << 18
"""Waiting for one side; more than that, and the other side is not read."""
RETRY = 0.05
"""Seconds before a stream that is over its rate is read again."""


class Valve:
    """One direction: read from a transport unless the other side is slow or the rate is over."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._slow = False
        self._over = False

    def slow(self, slow: bool) -> None:
        """The side that takes the bytes is slow, or has caught up."""
        self._slow = slow
        self._turn()

    def passed(self, size: int, budgets: Budgets | None) -> None:
        """So many bytes passed: where their rate is over, wait until it is paid off.

        In few pieces: each may be lost where another worker takes of the same bucket just then
        (``workers.books.SharedBudget``), and hundreds of small ones would meet all the time.
        """
        if budgets is None:
            return
        now = time.monotonic()
        piece = size
        while size > 0:
            if budgets.refuse(min(size, piece), now) is None:
                size -= piece
            elif piece > SMALLEST:
                piece //= 2
            else:
                break
        self._over = size > 0
        self._turn()
        if self._over:
            asyncio.get_running_loop().call_later(RETRY, self.passed, size, budgets)

    def _turn(self) -> None:
        reads = not (self._slow or self._over)
        if self._transport.is_closing() or self._transport.is_reading() is reads:
            return
        if reads:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


class PeerStream(asyncio.Protocol):
    """A TCP connection with a peer; reads nothing before ``splice`` gives it the client's."""

    def __init__(self, stats: Stats) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self.sending: Budgets | None = None
        self.receiving: Budgets | None = None
        self.tenant = ""
        self.peer = Address("", 0)
        self._stats = stats
        self._transport: asyncio.Transport | None = None
        self._client: asyncio.Transport | None = None
        self._from_peer: Valve | None = None
        self._from_client: Valve | None = None
        self._peer_is_gone = False
        self._client_is_gone = False
        self._early = b""

    def splice(self, client: asyncio.Transport) -> None:
        """Pass bytes on as they are, both ways, from now on."""
        self._client = client
        client.set_write_buffer_limits(high=MOST_UNSENT_BYTES)
        if self._transport is None or self._transport.is_closing():
            client.close()
        else:
            self._from_peer, self._from_client = Valve(self._transport), Valve(client)
            self._transport.resume_reading()
            early, self._early = self._early, b""
            if early:
                self.data_received(early)

    def write(self, data: bytes) -> None:
        """Pass on what the client sent."""
        if self._transport is not None and self._from_client is not None:
            self._transport.write(data)
            self._stats.sent_bytes += len(data)
            if self.tenant:
                self._stats.tenant_bytes.add(self.tenant, sent=len(data))
            self._from_client.passed(len(data), self.sending)

    def close(self) -> None:
        """End it once everything is sent: the client is gone."""
        self._client_is_gone = True
        if self._peer_is_gone:
            self.on_end()
        elif self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End it at once, and the client's side with it."""
        for transport in (self._transport, self._client):
            if transport is not None:
                transport.abort()

    def detach(self) -> tuple[socket.socket, bytes]:
        """Let go of a connection that carries nothing yet: its socket, and what was read of it.

        :raises OSError: it is over, or no descriptors are left.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise OSError("the peer is gone")
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        self.on_end = lambda: None
        transport.abort()  # closes this process's descriptor; the connection has another one
        return socket.socket(fileno=descriptor), self._early

    async def attach(self, sock: socket.socket, early: bytes) -> None:
        """Go on with a connection that another process let go of; owns the socket from then on.

        :raises OSError: it is over, or no descriptors are left.
        """
        self._early = early
        try:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            if sock.family == socket.AF_UNIX:
                await loop.create_unix_connection(lambda: self, sock=sock)
            else:
                await loop.create_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise

    def client_is_slow(self, slow: bool) -> None:
        """Stop reading from the peer until the client has taken what waits."""
        if self._from_peer is not None:
            self._from_peer.slow(slow)

    # asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold the peer until the client has claimed the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.pause_reading()
        self._transport.set_write_buffer_limits(high=MOST_UNSENT_BYTES)
        sock = transport.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # None: it has taken its leave already. Nobody has a permission for what is no address.
        self.peer = Address(*(transport.get_extra_info("peername") or self.peer)[:2])

    def data_received(self, data: bytes) -> None:
        """Pass on what the peer sent."""
        if self._client is None and self._transport is not None:
            # CPython 3.11.2 (Debian 12) begins to read although it was paused before: pause again.
            self._early += data
            self._transport.resume_reading()
            self._transport.pause_reading()
        elif self._client is not None and self._from_peer is not None:
            self._client.write(data)
            self._stats.received_bytes += len(data)
            if self.tenant:
                self._stats.tenant_bytes.add(self.tenant, received=len(data))
            self._from_peer.passed(len(data), self.receiving)

    def pause_writing(self) -> None:
        """The peer is slow: the client has to wait."""
        if self._from_client is not None:
            self._from_client.slow(True)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        if self._from_client is not None:
            self._from_client.slow(False)

    def connection_lost(self, error: Exception | None) -> None:
        """The client's side ends with the peer's (RFC 6062 §5.5).

        It counts until then: one that reads slowly still has a socket and a buffer of ours.
        """
        self._peer_is_gone = True
        if self._client is None or self._client_is_gone:
            self.on_end()
        else:
            self._client.close()


class TcpRelaySocket:
    """A relayed transport address that peers connect to; its socket listens already."""

    is_tcp = True

    def __init__(
        self,
        sock: socket.socket,
        public: Address,
        stats: Stats,
        on_close: Callable[["TcpRelaySocket"], None],
    ) -> None:
        self._sock = sock
        self._stats = stats
        self._on_close = on_close
        self._gate: Gate | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        """Until peers are accepted again."""
        self.address = Address(*sock.getsockname()[:2])
        self.public = public

    def send(self, _: Buffer, __: Endpoint) -> None:
        """No packets pass here. :raises OSError: always."""
        raise OSError("a TCP allocation carries no packets")

    send_unfragmented = send

    def start(self, _: ClientRoutes, gate: Gate) -> None:
        """Begin to accept peers."""
        self._gate = gate
        self._listen()

    def close(self) -> None:
        """Release the port; connections are their owner's to end."""
        if self._gate is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
        if self._pause is not None:
            self._pause.cancel()
        for task in self._tasks:
            task.cancel()
        self._sock.close()
        self._on_close(self)
        self._gate = None  # it leads to the allocation, which leads back here

    def connect(self, peer: Endpoint, done: Connected) -> None:
        """Connect to a peer from this address. ``done`` is not called after ``close``."""
        self._spawn(self._connect(peer, done))

    async def _connect(self, peer: Endpoint, done: Connected) -> None:
        try:
            stream = await self._dial(peer)
        except OSError:  # a timeout is one
            done(None, time.monotonic())
        else:
            done(stream, time.monotonic())

    async def _dial(self, peer: Endpoint) -> PeerStream:
        """Connect. :raises OSError: nobody takes it, or no descriptors are left."""
        loop = asyncio.get_running_loop()
        sock = _socket(self._sock.family)
        try:
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEPORT, 1
            )  # beside the one that listens
            sock.bind(tuple(self.address))
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.sock_connect(sock, tuple(peer))
            _, stream = await loop.create_connection(self._stream, sock=sock)
        except BaseException:
            sock.close()
            raise
        return stream

    def _listen(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionError):
            return  # whoever it was has gone
        except OSError:  # no descriptors left: it would be told of the same peer without a pause
            loop.remove_reader(self._sock)
            self._pause = loop.call_later(ACCEPT_PAUSE, self._listen)
            return
        sock.setblocking(False)
        self._spawn(self._take_in(sock))

    async def _take_in(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, stream = await loop.connect_accepted_socket(self._stream, sock)
        except OSError:
            sock.close()
            return
        if self._gate is None or not self._gate.connected(stream.peer, stream, time.monotonic()):
            stream.abort()

    def _stream(self) -> PeerStream:
        return PeerStream(self._stats)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def listening_socket(family: int, host: str, port: int) -> socket.socket:
    """A socket that listens at a relayed address, and no other does: of no process.

    :raises OSError: with the kernel's reason.
    """
    sock = _socket(family)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)  # where two have bound it, the second one fails here
        # Only now: connections to peers leave from the same address; but with this a process of
        # the same user could listen there too, and get half of the peers.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        sock.close()
        raise
    return sock


def _socket(family: int) -> socket.socket:
    """An unbound socket; connections that are over and linger do not keep it from an address."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock
