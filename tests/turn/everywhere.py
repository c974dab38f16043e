"""A host to which every address on earth leads back: whatever leaves a relay arrives somewhere."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.namespaces import ip, namespaces
from tests.turn.kernel.hosts import Host

IPV4, IPV6 = "8.8.4.4", "2606:4700::1"
"""What the host is called on the internet."""
PORT = 40000
"""Where the sinks listen, at every address."""


@contextmanager
def lonely_host() -> Iterator[Host]:
    """Make the host; it is gone again whatever happens. Needs root."""
    host = Host(f"ib{os.getpid()}-alone", "lo", IPV4, IPV6)
    with namespaces([host.namespace]):
        ip(
            host.namespace,
            f"addr add {IPV4}/32 dev lo",
            f"addr add {IPV6}/128 dev lo nodad",
            "route add local 0.0.0.0/0 dev lo",
            "route add local ::/0 dev lo",
        )
        yield host


class Sinks:
    """Sockets at each address of the earth, UDP and TCP, and a tap on the wire before them."""

    def __init__(self, host: Host) -> None:
        self._tap = host.wire()
        self._tap.setblocking(False)
        self._udp: list[socket.socket] = []
        self._tcp: list[socket.socket] = []
        with host.inside():
            for family, wildcard in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                for kind, kept in ((socket.SOCK_DGRAM, self._udp), (socket.SOCK_STREAM, self._tcp)):
                    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind((wildcard, PORT))
                    kept.append(sock)
            for sock in self._tcp:
                sock.listen(1000)

    def count(self) -> dict[str, int]:
        """What has arrived since the last time: datagrams, connections, frames of the relay's."""
        return {
            "udp": sum(_times(partial(sock.recv, 65536)) for sock in self._udp),
            "tcp": sum(_times(partial(_accept, sock)) for sock in self._tcp),
            "frames": self._frames(),
        }

    def _frames(self) -> int:
        """Frames whose sender is one of the host's public addresses."""
        own = socket.inet_aton(IPV4), socket.inet_pton(socket.AF_INET6, IPV6)
        found = 0
        while True:
            try:
                frame = self._tap.recv(65536)
            except BlockingIOError:
                return found
            found += frame[26:30] == own[0] or frame[22:38] == own[1]

    def close(self) -> None:
        """Close every socket."""
        for sock in (self._tap, *self._udp, *self._tcp):
            sock.close()


def _accept(listening: socket.socket) -> None:
    listening.accept()[0].close()


def _times(take: Callable[[], object]) -> int:
    """How often it can be called before it would wait."""
    count = 0
    while True:
        try:
            take()
        except BlockingIOError:
            return count
        count += 1
