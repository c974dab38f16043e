"""The sockets that workers listen on, a group of as many as there are workers for each address.

The kernel gives every client to one of a group by a hash of its end (SO_REUSEPORT). The pool
keeps all of them open, so a group never changes: a worker that dies takes nobody else's clients
with it, and the one that follows finds what waits in the same socket. For UDP a worker has two
at each address (``division``): one for data, one for requests.
"""

import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import structlog

from config.turn import TurnSettings
from turn.assemble import udp_endpoints
from turn.transport.accepting import BACKLOG
from turn.transport.bind import bind_tcp, bind_udp
from turn.transport.listeners import Bind, ListenError, explained, hosts_of
from turn.workers.division import divide

log = structlog.get_logger("turn")

BIND = {"udp": bind_udp, "tcp": bind_tcp}


class Group(NamedTuple):
    """The sockets of one address, one for each worker."""

    kind: str
    """``udp`` or ``tcp``."""
    host: str
    port: int
    """As asked for."""
    members: list[socket.socket]
    requests: list[socket.socket]
    """The second queue of each; empty: there is none."""

    def close(self) -> None:
        """Let go of them; the workers have theirs."""
        for member in (*self.members, *self.requests):
            member.close()


class Groups:
    """The groups of all addresses."""

    def __init__(self, settings: TurnSettings, workers: int) -> None:
        dtls = [(endpoint.host, endpoint.port) for endpoint in settings.listen_dtls]
        self._udp = [(place, False) for place in udp_endpoints(settings)]
        self._udp += [(place, True) for place in dtls]
        self._tcp = [(each.host, each.port) for each in (*settings.tcp, *settings.listen_tls)]
        self._workers = workers
        self._groups: list[Group] = []

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def open(self, addresses: Iterable[str]) -> None:
        """Open all. :raises ListenError: one cannot be had; none stays open."""
        try:
            for (host, port), is_dtls in self._wanted(addresses).items():
                self._groups.append(self._open("udp", host, port, is_dtls=is_dtls))
            for host, port in self._tcp:
                self._groups.append(self._open("tcp", host, port))
        except ListenError:
            self.close()
            raise

    def follow(self, addresses: Iterable[str]) -> list[Group]:
        """Open what is new, which is given, and let go of what is gone."""
        wanted = self._wanted(addresses)
        for group in [g for g in self._groups if g.kind == "udp" and g[1:3] not in wanted]:
            self._groups.remove(group)
            group.close()
        fresh = []
        for host, port in wanted.keys() - {group[1:3] for group in self._groups}:
            try:
                fresh.append(self._open("udp", host, port, is_dtls=wanted[host, port]))
            except ListenError as error:
                log.warning("new address not listened on", reason=str(error))
        self._groups += fresh
        return fresh

    def close(self) -> None:
        """Let go of all."""
        for group in self._groups:
            group.close()
        self._groups.clear()

    def _wanted(self, addresses: Iterable[str]) -> dict[tuple[str, int], bool]:
        """Where to listen for UDP, in order; True: for DTLS."""
        own = list(addresses)
        return {
            (each, port): is_dtls
            for (host, port), is_dtls in self._udp
            for each in hosts_of(host, own)
        }

    def _open(self, kind: str, host: str, port: int, *, is_dtls: bool = False) -> Group:
        members: list[socket.socket] = []
        try:
            # Another server of this user's may have such a group there already, and would have
            # to share its clients with us: the address has to be free for one that shares with
            # nobody.
            with BIND[kind](host, port) as alone:
                actual = alone.getsockname()[1]
            members.extend(BIND[kind](host, actual, shared=True) for _ in range(self._workers))
            if kind == "tcp":
                for member in members:  # the group is whole before the first client comes
                    member.listen(BACKLOG)
        except OSError as error:
            for member in members:
                member.close()
            raise explained(error, kind, host, port) from None
        apart = kind == "udp" and not is_dtls  # of DTLS the first bytes tell nothing
        return Group(kind, host, port, members, divide(members) if apart else [])


class Handed:
    """The sockets that a worker was given, for its listeners to take (``Bind``)."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str, int], list[socket.socket]] = {}
        self._requests: dict[object, socket.socket] = {}
        """By where they are bound."""

    @property
    def bind(self) -> Bind:
        """Where the listeners ask."""
        return Bind(
            lambda host, port: self._take("udp", host, port),
            lambda host, port: self._take("tcp", host, port),
            lambda sock: self._requests.pop(sock.getsockname(), None),
        )

    def put(self, kind: str, host: str, port: int, descriptor: int) -> None:
        """Keep one until it is asked for."""
        sock = socket.socket(fileno=descriptor)
        sock.setblocking(False)
        if kind == "requests":
            self._requests[sock.getsockname()] = sock
            return
        self._waiting.setdefault((kind, host, port), []).append(sock)

    def _take(self, kind: str, host: str, port: int) -> socket.socket:
        waiting = self._waiting.get((kind, host, port))
        if not waiting:
            raise OSError(0, "the pool has not opened it")
        return waiting.pop(0)

    def close(self) -> None:
        """Let go of those that nobody asked for."""
        waiting = [sock for waiting in self._waiting.values() for sock in waiting]
        for sock in (*waiting, *self._requests.values()):
            sock.close()
        self._waiting.clear()
        self._requests.clear()
