"""What one worker lets go of and another one goes on with: a port, or a whole allocation."""

import asyncio
import socket
import time
from typing import cast

from turn.allocation.elsewhere import Shown
from turn.allocation.engine import Engine
from turn.allocation.model import Owner, Relay
from turn.allocation.policy import PeerPolicy
from turn.allocation.record import Record, record_of
from turn.codec.errors import StunError
from turn.codec.values import Address
from turn.relay.ports import RelayPorts
from turn.relay.sockets import RelaySocket
from turn.routes import RouteTable

GRACE = 1.0
"""Seconds that what has left counts here as well: until it counts where it has gone."""


class Handover:
    """A relay beside others of this machine, which have ports and allocations of their own."""

    def __init__(
        self, engine: Engine, ports: RelayPorts, routes: RouteTable, policy: PeerPolicy
    ) -> None:
        self._engine = engine
        self._ports = ports
        self._routes = routes
        self._policy = policy

    def release_port(self, token: bytes, owner: Owner) -> socket.socket | None:
        """Let go of a reserved port that a client of another worker shows the token of."""
        try:
            relay = self._engine.table.claim(token, owner)
        except StunError:
            return None
        return cast("RelaySocket", relay).detach()

    def release_allocation(self, shown: Shown) -> tuple[Record, list[socket.socket]] | None:
        """Let go of an allocation that a client of another worker shows the ticket of.

        What its new address is counted for stays counted here for a moment: never by none.

        :returns: None: it does not move, but the client's connection may come here.
        :raises StunError: it may not have it.
        """
        released = self._engine.hand_over(shown, time.monotonic())
        if released is None:
            return None
        allocation, held = released
        relays = [relayed.relay for relayed in allocation.relayed.values()]
        record = record_of(allocation)
        asyncio.get_running_loop().call_later(GRACE, self._engine.table.books.give, held)
        return record, [cast("RelaySocket", relay).detach() for relay in relays]

    def adopt(self, sock: socket.socket) -> Relay:
        """Relay from a port that another worker let go of."""
        return self._ports.adopt(sock)

    def relay_gone(self, relayed: Address) -> None:
        """Another worker's relayed address is released: nobody here sends there any more."""
        self._routes.remove_to(relayed)

    def worker_gone(self) -> None:
        """End the routes to our own addresses that lead nowhere since a worker died."""
        own = self._policy.own_addresses
        peers = {r.wire_peer: r.peer for r in self._routes.all() if r.wire_peer.host in own}
        for wire_peer, peer in peers.items():
            if not self._policy.allows(peer):
                self._routes.remove_to(wire_peer)
