"""Proxies that say for whom they speak (``turn.codec.proxy``), and who is trusted to be one."""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from turn.allocation.engine import Engine
from turn.codec import proxy
from turn.codec.values import Address
from turn.routes import Endpoint, FiveTuple, ThroughProxy, Transport

MOST_CLIENTS = 65536
"""Clients behind UDP proxies that one listener keeps apart; the one silent longest makes room."""
HOSTS_REMEMBERED = 4096


class Proxies:
    """Who is trusted to say for whom it speaks."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self._networks = tuple(networks)
        self.trusts = lru_cache(HOSTS_REMEMBERED)(self._trusts)
        """Whether a host is in one of the networks."""

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _trusts(self, host: str) -> bool:
        address = ip_address(host)
        return any(address in network for network in self._networks)


class Behind(NamedTuple):
    """A client behind a proxy."""

    client: Address
    send: ThroughProxy


class UdpProxied:
    """The clients that proxies bring to one UDP listener.

    A proxy gives each of its clients a port of its own. Some put the header in front of every
    datagram, some in front of the first: what was said last of a port holds.
    """

    def __init__(self, engine: Engine, sock: socket.socket, server: Address) -> None:
        self._engine = engine
        self._send = sock.sendto
        self._server = server
        self._behind: OrderedDict[Endpoint, Behind] = OrderedDict()
        self._places: dict[Address, Endpoint] = {}

    def of(self, place: Endpoint) -> Behind | None:
        """Who is behind a proxy's port, as far as it was said."""
        found = self._behind.get(place)
        if found is not None:
            self._behind.move_to_end(place)
        return found

    def said(self, place: Endpoint, client: Address) -> Behind:
        """A proxy's header names the client behind one of its ports."""
        known = self.of(place)
        if known is not None and known.client == client:
            return known
        if known is not None:  # what was the other client's must not reach this one
            self._forget(place)
        made = self._behind[place] = Behind(client, ThroughProxy(self._send, place))
        before = self._places.get(client)
        if before is not None:
            del self._behind[before]
            self._engine.rerouted(self._five_tuple(client), made.send)
        self._places[client] = place
        if len(self._behind) > MOST_CLIENTS:
            self._forget(next(iter(self._behind)))
        return made

    def _forget(self, place: Endpoint) -> None:
        client = self._behind.pop(place).client
        del self._places[client]
        self._engine.disconnected(self._five_tuple(client), for_good=True)

    def _five_tuple(self, client: Address) -> FiveTuple:
        return FiveTuple(Transport.UDP, client, self._server)


async def introduced(sock: socket.socket) -> Address | None:
    """Read the header that a connection from a proxy begins with, and not a byte more.

    :returns: whom the proxy speaks for; None: for itself.
    :raises Malformed: it begins with something else.
    :raises EOFError: it ends.
    """
    head = await _exactly(sock, proxy.HEAD.size)
    rest = await _exactly(sock, proxy.size_of(head) - len(head))
    return proxy.parse_untrusted(head + rest).client


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        part = await loop.sock_recv(sock, size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
