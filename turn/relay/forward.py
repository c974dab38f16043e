"""HOT: the two functions that carry packets in user space, each a lookup, a send, one count.

Buffers: a packet is read into one shared buffer behind ``HEADROOM`` bytes, so that the header
that goes before its payload is written in place and nothing is copied.
"""

import errno
import secrets
import socket
import struct
from collections.abc import Callable

from turn.codec.indication import data_indication_header, parse_send_indication
from turn.codec.values import IPV4, IPV6, Address
from turn.relay.batch import LARGEST_DATAGRAM, Letter
from turn.routes import ONE_PACKET, ClientRoutes, FiveTuple, Route, Send
from turn.stats import DropReason, Stats

HEADROOM = 48
"""Room for the longest header: a Data indication's to an IPv6 peer (20 + 24 + 4 bytes)."""
LONGEST_MESSAGE = 65535
"""What the length field of a STUN message can say; its header is not counted."""

# ChannelData: channel number, length of the payload (RFC 8656 §12.4).
CHANNEL_HEADER = struct.Struct("!HH")
LENGTH = struct.Struct("!H")
PADDING = bytes(3)

OF_ICMP = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES})
"""How a socket tells, in place of sending, of the ICMP error that an earlier packet drew."""

RouteTo = Callable[[FiveTuple, Address, float], Route | None]


class Forwarder:
    """The user-space plane. It reads routes and asks for one only where a packet has none."""

    def __init__(self, stats: Stats, route_to: RouteTo) -> None:
        self.stats = stats
        self._drop = stats.drop
        self._route_to = route_to
        self.buffer = bytearray(HEADROOM + LARGEST_DATAGRAM + len(PADDING))
        self.view = memoryview(self.buffer)
        self.room = self.view[HEADROOM : HEADROOM + LARGEST_DATAGRAM]
        """Where a peer's datagram is read to."""
        self.letters = {
            IPV4: Letter(socket.AF_INET, self.buffer, HEADROOM),
            IPV6: Letter(socket.AF_INET6, self.buffer, HEADROOM),
        }

    def client_to_peer(self, routes: ClientRoutes | None, message: memoryview, now: float) -> None:
        """Carry the payload of a ChannelData message (RFC 8656 §12.5)."""
        if len(message) < 4:
            return self._drop(DropReason.MALFORMED)
        channel, length = CHANNEL_HEADER.unpack_from(message)
        return self.carry(routes, channel, message, 4, length, len(message), now)

    def carry(
        self,
        routes: ClientRoutes | None,
        channel: int,
        view: memoryview,
        start: int,
        length: int,
        most: int,
        now: float,
    ) -> None:
        """The same where the header is read already.

        :param start: where in ``view`` the payload begins.
        :param most: where the message ends, and the payload at the latest.
        """
        end = start + length
        if end > most:
            return self._drop(DropReason.MALFORMED)
        if routes is None:
            return self._drop(DropReason.NO_ALLOCATION)
        route = routes.latest
        if route is None or route.channel != channel or route.expires <= now:
            route = routes.channels.get(channel)
            if route is None or route.expires <= now:
                return self._drop(DropReason.NO_CHANNEL)
            routes.latest = route
        return self._send(route, route.to_peer, view[start:end], length, now)

    def send_indication(self, routes: ClientRoutes | None, message: memoryview, now: float) -> None:
        """Carry the payload of a Send indication (RFC 8656 §11.2): Firefox knows no other way."""
        parsed = parse_send_indication(message)
        if parsed is None:
            return self._drop(DropReason.MALFORMED)
        if routes is None:
            return self._drop(DropReason.NO_ALLOCATION)
        peer, payload, unfragmented = parsed
        route = routes.peers.get(peer)
        if route is None or route.expires <= now:
            route = self._route_to(routes.client, peer, now)
            if route is None:
                return None
        send = route.to_peer_unfragmented if unfragmented else route.to_peer
        return self._send(route, send, payload, len(payload), now)

    def _send(self, route: Route, send: Send, payload: memoryview, length: int, now: float) -> None:
        sending = route.sending
        if sending is not None and (empty := sending.refuse(length, now)):
            return self._drop(empty)
        try:
            send(payload, route.wire_peer)
        except OSError as error:  # no route, too long for a datagram, buffers full
            if error.errno not in OF_ICMP or not _sends(send, payload, route.wire_peer):
                return self._drop(DropReason.SEND_FAILED)
        route.sent += ONE_PACKET + length
        return None

    def peer_to_client(self, route: Route, size: int, now: float) -> None:
        """Carry the ``size`` bytes that a peer sent (they lie in ``room``) (RFC 8656 §11.3)."""
        receiving = route.receiving
        if receiving is not None and (empty := receiving.refuse(size, now)):
            return self._drop(empty)
        end = HEADROOM + size
        if route.channel:
            start = HEADROOM - 4
            CHANNEL_HEADER.pack_into(self.buffer, start, route.channel, size)
        else:
            header = route.header or self._make_header(route)
            start = HEADROOM - len(header)
            self.buffer[start:HEADROOM] = header
            LENGTH.pack_into(self.buffer, HEADROOM - 2, size)
            if size & 3:
                self.buffer[end : end + 3] = PADDING
                end += -size & 3
            length = end - start - 20
            if length > LONGEST_MESSAGE:  # the longest datagrams of IPv6 do not fit into one
                return self._drop(DropReason.SEND_FAILED)
            LENGTH.pack_into(self.buffer, start + 2, length)
        try:
            route.to_client(self.view[start:end], route.destination)
        except BlockingIOError:
            return self._drop(DropReason.CLIENT_BACKLOG)
        except OSError:
            return self._drop(DropReason.SEND_FAILED)
        route.received += ONE_PACKET + size
        return None

    @staticmethod
    def _make_header(route: Route) -> bytes:
        """A Data indication up to its payload, lengths left open.

        Its transaction id is random for each route, not each packet: nothing ever answers an
        indication, and drawing twelve bytes costs as much as the lookup.
        """
        route.header = data_indication_header(secrets.token_bytes(12), route.peer)
        return route.header


def _sends(send: Send, payload: memoryview, peer: Address) -> bool:
    """Whether a second try sends a packet."""
    try:
        send(payload, peer)
    except OSError:
        return False
    return True
