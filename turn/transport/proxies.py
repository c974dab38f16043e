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
SPARED_AT_ONCE = 64
"""Clients with an allocation that are passed over to find one without."""
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

    A proxy gives each of its clients a port of its own, and puts a header in front of every
    datagram: were it in front of the first alone, a client could put one in front of its second.
    """

    def __init__(self, engine: Engine, sock: socket.socket, server: Address) -> None:
        self._engine = engine
        self._send = sock.sendto
        self._server = server
        self._behind: OrderedDict[Endpoint, Behind] = OrderedDict()
        self._places: dict[Address, Endpoint] = {}

    def said(self, place: Endpoint, client: Address) -> Behind:
        """A proxy's header names the client behind one of its ports."""
        known = self._behind.get(place)
        if known is not None and known.client == client:
            self._behind.move_to_end(place)
            return known
        if known is not None:  # what was the other client's must not reach this one
            self._forget(place)
        if len(self._behind) >= MOST_CLIENTS:
            self._forget(self._idlest())
        made = self._behind[place] = Behind(client, ThroughProxy(self._send, place))
        before = self._places.get(client)
        if before is not None:
            del self._behind[before]
            self._engine.rerouted(self._five_tuple(client), made.send)
        self._places[client] = place
        return made

    def _idlest(self) -> Endpoint:
        """Whose turn it is to make room: not of those with an allocation, while there are others.

        A flood of strangers behind a proxy shall end nobody's.
        """
        for _ in range(SPARED_AT_ONCE):
            place = next(iter(self._behind))
            if self._engine.table.get(self._five_tuple(self._behind[place].client)) is None:
                break
            self._behind.move_to_end(place)
        return next(iter(self._behind))

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
