"""The sockets that workers listen on, a group of as many as there are workers for each address.

The kernel gives every client to one of a group by a hash of its end (SO_REUSEPORT). The pool
keeps all of them open, so a group never changes: a worker that dies takes nobody else's clients
with it, and the one that follows finds what waits in the same socket. For UDP a worker has two
at each address (``division``): one for data, one for requests.
"""

import errno
import itertools
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import structlog

from config.turn import TurnSettings
from turn.assemble import stream_places, udp_endpoints
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

    def of(self, worker: int) -> list[socket.socket]:
        """A worker's own: for data, and for requests where that is another one."""
        return [socks[worker] for socks in (self.members, self.requests) if socks]

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
        self._tcp = [(place.host, place.port) for place in stream_places(settings)]
        self._workers = workers
        self._groups: list[Group] = []
        self._missing: set[tuple[str, int]] = set()
        """Where there is to be a group and is none yet: told once, tried whenever a worker asks."""

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
        self._missing &= wanted.keys()
        for group in [g for g in self._groups if g.kind == "udp" and g[1:3] not in wanted]:
            self._groups.remove(group)
            group.close()
        fresh = []
        for host, port in wanted.keys() - {group[1:3] for group in self._groups}:
            try:
                fresh.append(self._open("udp", host, port, is_dtls=wanted[host, port]))
            except ListenError as error:
                if (host, port) not in self._missing:
                    log.warning("new address not listened on; trying again", reason=error.strerror)
                self._missing.add((host, port))
            else:
                self._missing.discard((host, port))
        self._groups += fresh
        return fresh

    def listened(self, addresses: Iterable[str]) -> list[str]:
        """Those of the machine's addresses that have every group that they are to have."""
        without = {host for host, _ in self._missing}
        return [address for address in addresses if address not in without]

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

    def __init__(self, miss: Callable[[str, str, int], None] = lambda *_: None) -> None:
        """Prepare. :param miss: hears of one that is asked for and has not come."""
        self._miss = miss
        self._waiting: dict[tuple[str, str, int], list[list[socket.socket]]] = {}
        """Each with its second queue, if it has one."""
        self._requests: dict[socket.socket, socket.socket] = {}
        """The second queues of those that were taken."""

    @property
    def bind(self) -> Bind:
        """Where the listeners ask."""
        return Bind(
            lambda host, port: self._take("udp", host, port),
            lambda host, port: self._take("tcp", host, port),
            lambda sock: self._requests.pop(sock, None),
        )

    def put(self, kind: str, host: str, port: int, descriptors: Sequence[int]) -> None:
        """Keep one until it is asked for, and its second queue, if it has one."""
        socks = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for sock in socks:
            sock.setblocking(False)
        self._waiting.setdefault((kind, host, port), []).append(socks)

    def _take(self, kind: str, host: str, port: int) -> socket.socket:
        waiting = self._waiting.get((kind, host, port))
        if not waiting:
            self._miss(kind, host, port)
            raise OSError(errno.EAGAIN, "its socket has not come from the pool")
        sock, *requests = waiting.pop(0)
        self._requests.update((sock, each) for each in requests)
        return sock

    def close(self) -> None:
        """Let go of those that nobody asked for."""
        for socks in itertools.chain.from_iterable(self._waiting.values()):
            for sock in socks:
                sock.close()
        self._waiting.clear()
