"""Sockets bound to the addresses that the server listens on."""

import socket
from collections.abc import Callable

from turn.relay.icmp import forbid_fragments
from turn.transport.queues import make_room

RECEIVE_BUFFER = 4 << 20
"""Bytes; all clients share one UDP socket. See ``make_room``."""


def bind_udp(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound, non-blocking socket.

    :param shared: one of several on this address, among which the kernel divides the clients.
    :raises OSError: with the kernel's reason.
    """

    def prepare(sock: socket.socket) -> None:
        if sock.family == socket.AF_INET:
            # The DF bit of a peer's packet is not known: it counts as clear (RFC 8656 §14).
            forbid_fragments(sock, False)
        make_room(sock, RECEIVE_BUFFER)

    return _bound(socket.SOCK_DGRAM, (host, port), prepare, shared=shared)


def bind_tcp(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """The same for connections; it does not listen yet."""

    def prepare(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Each accepted connection inherits it: relayed packets are small, and wait for nothing.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    return _bound(socket.SOCK_STREAM, (host, port), prepare, shared=shared)


def _bound(
    kind: socket.SocketKind,
    place: tuple[str, int],
    prepare: Callable[[socket.socket], None],
    *,
    shared: bool,
) -> socket.socket:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        sock.bind(place)
    except OSError:
        sock.close()
        raise
    return sock
