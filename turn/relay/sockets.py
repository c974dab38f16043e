"""A relayed transport address: one UDP socket that peers see, and the packets that come to it."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from turn.allocation.model import Gate
from turn.codec.values import Address, family_of
from turn.relay.batch import address_of, receive_one
from turn.relay.forward import Forwarder
from turn.relay.icmp import forbid_fragments, next_error
from turn.relay.poll import Poller
from turn.routes import Buffer, ClientRoutes, Route, Send


class RelaySocket:
    """Owns one socket; ``close`` gives it back."""

    is_tcp = False
    __slots__ = (
        "_forwarder", "_gate", "_latest", "_letter", "_on_close", "_poller", "_routes", "_sock",
        "address", "public", "send",
    )  # fmt: skip

    def __init__(
        self,
        sock: socket.socket,
        ends: tuple[Address, Address],
        poller: Poller,
        forwarder: Forwarder,
        on_close: Callable[["RelaySocket"], None],
    ) -> None:
        """Own a socket.

        :param ends: where it is bound, and what the client is told (``Relay``).
        """
        self._sock = sock
        self._poller = poller
        self._forwarder = forwarder
        self._on_close = on_close
        self._routes: ClientRoutes | None = None
        self._gate: Gate | None = None
        self._latest: Route | None = None
        """That of the last packet, and mostly of the next one."""
        self.address, self.public = ends
        self._letter = forwarder.letters[family_of(self.address)]
        self.send: Send = sock.sendto

    def send_unfragmented(self, data: Buffer, peer: Address) -> None:
        """Send with the DF bit set. :raises OSError: too long for the path, as for ``send``.

        The socket is told before and after, because Linux knows no such flag for one packet.
        """
        forbid_fragments(self._sock, True)
        try:
            self._sock.sendto(data, peer)
        finally:
            forbid_fragments(self._sock, False)

    def start(self, routes: ClientRoutes, gate: Gate) -> None:
        """Begin to carry packets from peers to the client."""
        self._routes = routes
        self._gate = gate
        self._poller.add(self._sock, self._read)

    def detach(self) -> socket.socket:
        """Let go of the socket without closing it: another process goes on with it."""
        self._poller.remove(self._sock)
        self._on_close(self)
        self._latest = None  # it leads back here
        return self._sock

    def close(self) -> None:
        """Release the port; no packet comes or goes any more."""
        self._poller.remove(self._sock)
        self._sock.close()
        self._on_close(self)
        self._gate = self._latest = None  # they lead to the allocation, which leads back here

    def _read(self, descriptor: int, now: float) -> int:
        """Carry one packet. One a turn: to find out that no second one waits costs as much."""
        letter = self._letter
        size = receive_one(descriptor, letter.message, 0)
        if size < 0:  # nothing there after all, or the ICMP error of an earlier packet
            return self._read_errors()
        (source,) = letter.unpack(letter.name)
        route = self._latest
        if route is None or route.source != source or route.expires <= now:
            route = self._latest = self._route_of(address_of(source), now)
            if route is None:
                return 1
        self._forwarder.peer_to_client(route, size, now)
        return 1

    def _route_of(self, peer: Address, now: float) -> Route | None:
        """The route that a peer's packet takes; None: dropped, and counted."""
        if self._routes is None or self._gate is None:
            return None
        route = self._routes.peers.get(peer)
        if route is None or route.expires <= now:
            route = self._gate.admit(peer, now)
        return route

    def _read_errors(self) -> int:
        """Tell the client of the ICMP errors that wait; gives how many there were, at least 1."""
        count = 1
        with suppress(OSError):
            while True:
                error = next_error(self._sock)
                count += 1
                if error is not None and self._gate is not None:
                    self._gate.unreachable(error.peer, error.icmp, time.monotonic())
        return count
