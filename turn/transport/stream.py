"""TCP and TLS clients: the same messages as over UDP, cut out of a stream of bytes.

A connection that sends anything else is closed without a word, as is one that does not come to
the point; its allocation goes with it (RFC 8656 §4).
"""

import asyncio
import contextlib
import functools
import time
from typing import NamedTuple, Protocol, cast

from turn.allocation.engine import Engine
from turn.allocation.request import Waiting
from turn.auth.authenticate import Now
from turn.codec.errors import Malformed
from turn.codec.framing import StreamFramer
from turn.codec.values import Address
from turn.relay.forward import Forwarder
from turn.relay.tcp import PeerStream
from turn.routes import Buffer, ClientRoutes, FiveTuple, RouteTable, Transport
from turn.stats import DropReason, Stats
from turn.transport.limits import ConnectionLimit, ReplyLimit
from turn.transport.proxies import Proxies

READ_BYTES = 65536
"""What one wake-up brings at most; all connections read into the same buffer."""
READ_OF_STRANGERS = 1 << 8
"""The same of who has proved nothing: what such a connection asks in a row, all others wait for.
And whether its replies are read is seen only between two wake-ups."""
MOST_UNSENT_BYTES = 1 << 20
"""Waiting for a client that reads slowly; relayed packets beyond it are dropped, as UDP would."""
MOST_UNSENT_REPLIES = 1 << 14
"""The same without an allocation: who asks and does not read is cut off."""
IDLE_TIMEOUT = 60.0
"""Seconds that a connection without an allocation may stay once it sent a valid request."""
SEND_INDICATION = b"\x00\x16"


class StreamShared(NamedTuple):
    """What all connections work with."""

    engine: Engine
    forwarder: Forwarder
    routes: RouteTable
    stats: Stats
    strangers: ConnectionLimit
    proxies: Proxies
    handshakes: ReplyLimit
    """Of TLS; the bucket is the same, whatever is let through."""


class Belongs(Protocol):
    """Where a connection belongs: the listener that took it in."""

    shared: StreamShared
    transport: Transport
    connections: "set[StreamConnection]"


class StreamConnection(asyncio.BufferedProtocol):
    """One client's connection."""

    buffer = memoryview(bytearray(READ_BYTES))
    """Shared by all connections: what arrives is used up before the next one reads."""

    def __init__(
        self,
        listener: Belongs,
        *,
        stranger: bool = False,
        source: Address | None = None,
        client: FiveTuple | None = None,
    ) -> None:
        """Wait for a transport.

        :param stranger: it is counted among its address's strangers already.
        :param source: the client's address, where it is not the socket's: a proxy brings it.
        :param client: who it is, where another worker has proved it and the socket says nothing.
        """
        self._source = source
        self._listener = listener
        self._shared = listener.shared
        self._framer = StreamFramer()
        self._transport: asyncio.Transport | None = None
        self._client = client
        self._led = client is not None
        self._stranger = stranger
        self._deadline: asyncio.TimerHandle | None = None
        self._peer: PeerStream | None = None
        """Where bytes go as they are, once the client has claimed it (RFC 6062 §5.4)."""
        self._held: bytearray | None = None
        """What came while the reply is waited for that says whether it is bytes or messages."""

    # asyncio.BufferedProtocol --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take in a new client, unless its address has its share of strangers."""
        self._transport = cast("asyncio.Transport", transport)
        if self._client is None and not self._let_in(self._transport):
            self._shared.stats.drop(DropReason.TOO_MANY_CONNECTIONS)
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=MOST_UNSENT_BYTES)
        self._listener.connections.add(self)
        self._close_in(self._shared.strangers.timeout)

    def _let_in(self, transport: asyncio.Transport) -> bool:
        """Find out who it is, and whether its address has its share of strangers."""
        peer = self._source or transport.get_extra_info("peername")
        server = transport.get_extra_info("sockname")
        if peer is None or not (self._stranger or self._shared.strangers.enter(peer[0])):
            return False
        self._stranger = True
        self._client = FiveTuple(self._listener.transport, Address(*peer[:2]), Address(*server[:2]))
        return True

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport reads to."""
        return self.buffer[:READ_OF_STRANGERS] if self._stranger else self.buffer

    def buffer_updated(self, size: int) -> None:
        """Use up what was read."""
        self._use_up(self.buffer[:size])

    def _use_up(self, data: memoryview) -> None:
        if self._client is None or self._pass_on(data):
            return
        try:
            for frame in self._framer.feed(data):
                self._receive(self._client, frame)
                if self._transport is None or self._transport.is_closing():
                    return
                if self._pass_on(data[self._framer.consumed :]):
                    return
        except Malformed:
            self._shared.stats.drop(DropReason.MALFORMED)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Let go of everything that the client had."""
        if self._deadline:
            self._deadline.cancel()
        self._listener.connections.discard(self)
        if self._client is None:
            return
        self._leave_strangers()
        if self._peer is not None:
            self._peer.close()
        self._shared.engine.disconnected(self._client)

    def pause_writing(self) -> None:
        """The client reads slowly: the peer that it is spliced with has to wait."""
        if self._peer is not None:
            self._peer.client_is_slow(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._peer is not None:
            self._peer.client_is_slow(False)

    def _pass_on(self, data: memoryview) -> bool:
        """Take bytes that are no messages, or not known to be any; False: messages."""
        if self._peer is not None:
            self._peer.write(bytes(data))
        elif self._held is not None:
            self._held += data
        else:
            return False
        return True

    @property
    def began(self) -> bool:
        """Whether the client was taken in; the connection keeps count of it from then on."""
        return self._client is not None

    # The road of a frame -------------------------------------------------------------------

    def _receive(self, client: FiveTuple, frame: memoryview | bytes) -> None:
        now = time.monotonic()
        view = memoryview(frame)
        if view[0] >= 0x40:
            self._shared.forwarder.client_to_peer(self._routes(client), view, now)
        elif view[:2] == SEND_INDICATION:
            self._shared.forwarder.send_indication(self._routes(client), view, now)
        else:
            self._request(client, view, now)

    def _request(self, client: FiveTuple, view: memoryview, now: float) -> None:
        engine = self._shared.engine
        reply = engine.handle(view, client, self.send, Now(now, time.time()))
        if reply is None:
            return
        if reply.waiting is None:
            self._answered(client, reply.data, reply.stream)
        else:
            self._wait(client, reply.waiting)

    def _answered(self, client: FiveTuple, data: bytes, stream: object) -> None:
        """Send a reply, and go on with what it says that the connection carries."""
        if self._transport is None:
            return
        has_purpose = self._shared.engine.table.get(client) is not None or stream is not None
        if not has_purpose and self._transport.get_write_buffer_size() > MOST_UNSENT_REPLIES:
            self._shared.stats.drop(DropReason.CLIENT_BACKLOG)
            self.abort()
            return
        if data:
            with contextlib.suppress(OSError):
                self.send(data, client.client)
        if not has_purpose:
            self._be_stranger()
        elif self._deadline:
            self._deadline.cancel()
            self._deadline = None
            self._leave_strangers()
        if stream is not None:
            self._peer = cast("PeerStream", stream)
            self._peer.splice(self._transport)

    def _wait(self, client: FiveTuple, waiting: Waiting) -> None:
        """Handle nothing more before the reply is there."""
        if self._led:  # its allocation is over, and it asks for what another worker has
            self.abort()
        self._held = bytearray()
        if self._transport is not None:
            self._transport.pause_reading()
        self._close_in(IDLE_TIMEOUT)
        waiting.tell(functools.partial(self._arrived, client))

    def _arrived(self, client: FiveTuple, data: bytes, stream: object) -> None:
        """Go on, with what was held first."""
        held, self._held = self._held or bytearray(), None
        if self._transport is None or self._transport.is_closing():  # it did not wait
            if stream is not None:
                cast("PeerStream", stream).abort()
            return
        self._transport.resume_reading()
        self._answered(client, data, stream)
        if held and not self._transport.is_closing():
            self._use_up(memoryview(held))

    def _routes(self, client: FiveTuple) -> ClientRoutes | None:
        return self._shared.routes.of(client)

    def send(self, data: Buffer, _: Address) -> None:
        """Send a message; ChannelData is padded to four bytes on a stream (RFC 8656 §12.5).

        :raises BlockingIOError: the client reads too slowly; nothing was sent.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise BlockingIOError
        if transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
            raise BlockingIOError
        # A copy, because the caller's buffer holds the next packet before this one may be sent.
        padding = -len(data) % 4
        transport.write(bytes(data) + bytes(padding) if padding else bytes(data))

    def abort(self) -> None:
        """Close without waiting for anything that is unsent."""
        if self._transport:
            self._transport.abort()

    def _end(self) -> None:
        """Close once everything is sent, or does not get sent."""
        if self._transport:
            self._transport.close()
            self._close_in(self._shared.strangers.timeout)

    def sweep(self) -> None:
        """Close soon where an allocation has expired and left the connection without a purpose."""
        if (
            self._client
            and not self._deadline
            and not self._peer
            and self._shared.engine.table.get(self._client) is None
        ):
            self._be_stranger()

    # Strangers -----------------------------------------------------------------------------

    def _close_in(self, seconds: float) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._overdue)

    def _overdue(self) -> None:
        self._deadline = None
        if self._client and self._shared.engine.table.get(self._client) is not None:
            self._leave_strangers()  # its Allocate was answered later than handled
        else:
            self.abort()

    def _be_stranger(self) -> None:
        """Close soon, unless there will be an allocation; at once where its address has its share.

        Also one that had an allocation: else a user could keep any number of connections. What
        leads here from another worker is for one allocation: else a client could be led from worker
        to worker without an end, and hold descriptors of each.
        """
        if self._led:
            self._end()
            return
        if self._client and not self._stranger:
            self._stranger = self._shared.strangers.enter(self._client.client.host)
            if not self._stranger:
                self._shared.stats.drop(DropReason.TOO_MANY_CONNECTIONS)
                self._end()
                return
        self._close_in(IDLE_TIMEOUT)

    def _leave_strangers(self) -> None:
        if self._stranger and self._client:
            self._stranger = False
            self._shared.strangers.leave(self._client.client.host)
