"""Relayed transport addresses are opened here: which address, which port, and the search for it."""

import errno
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from turn.allocation.model import NoPort
from turn.codec.values import Address, Family
from turn.relay.forward import Forwarder
from turn.relay.icmp import prepare
from turn.relay.poll import Poller
from turn.relay.shelf import NO_SHELF, Shelf, name_of
from turn.relay.sockets import RelaySocket
from turn.relay.tcp import TcpRelaySocket, listening_socket

RANDOM_TRIES = 16
"""Ports to try at random before the whole range is searched from a random place."""
KIND = "relay"
"""What the names of its sockets begin with on a shelf."""
SOCKET_FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
DATAGRAMS = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
NOT_THIS_PORT = {errno.EADDRINUSE, errno.EACCES}


class RelayPorts:
    """Opens relay sockets; knows how many are open."""

    def __init__(
        self,
        ports: tuple[int, int],
        addresses: Mapping[Family, Sequence[str]],
        public_of: Mapping[str, str],
        make: tuple[Poller, Forwarder],
        random_below: Callable[[int], int],
    ) -> None:
        """Prepare to open.

        :param ports: the first and the last port of the range.
        :param addresses: our addresses to relay from; the first of a family is its default.
        :param public_of: our address -> what clients are told, behind 1:1 NAT ("" = any).
        :param random_below: an unpredictable number below its argument.
        """
        self.set_range(ports, public_of)
        self._poller, self._forwarder = make
        self._random_below = random_below
        self._used: defaultdict[str, set[int]] = defaultdict(set)
        self.in_use_at: Callable[[str], int] = lambda host: len(self._used[host])
        """How many ports of an address are known to be in use, others' with them."""
        self.shelf: Shelf = NO_SHELF
        """Where sockets outlive the process."""
        self._on_close = self._closed
        """One for all sockets: each would have its own bound method."""
        self.tcp = False
        """Whether TCP allocations are to be had."""
        self.set_addresses(addresses)

    def set_range(self, ports: tuple[int, int], public_of: Mapping[str, str]) -> None:
        """Open within this range, and tell clients these addresses, from now on."""
        first, last = ports
        self._ports = {step: range(first + first % step, last + 1, step) for step in (1, 2)}
        """Those of the range: all of them, and the even ones."""
        self._public_of = dict(public_of)

    def set_addresses(self, addresses: Mapping[Family, Sequence[str]]) -> None:
        """Relay from these from now on; what is open on others stays until it is closed."""
        self._addresses = {family: list(hosts) for family, hosts in addresses.items()}
        self.families = frozenset(family for family, hosts in addresses.items() if hosts)

    @property
    def in_use(self) -> int:
        """Ports that are open now, reserved ones with them."""
        return sum(len(ports) for ports in self._used.values())

    @property
    def size(self) -> int:
        """Ports of the range: what each address has."""
        return len(self._ports[1])

    @property
    def free(self) -> int:
        """Ports that are left at the address that has the fewest."""
        hosts = [host for hosts in self._addresses.values() for host in hosts]
        return min((self.size - len(self._used[host]) for host in hosts), default=0)

    def open(self, family: Family, server: str, *, even: bool) -> RelaySocket:
        """Open one on a random port. :raises NoPort: none is free."""
        host = self._host(family, server)
        sock = _socket(family)
        for port in self._candidates(host, step=2 if even else 1):
            if _bind(sock, host, port):
                return self._relay(sock, Address(host, port))
        sock.close()
        raise NoPort

    def open_pair(self, family: Family, server: str) -> tuple[RelaySocket, RelaySocket]:
        """Open two on an even port and the next one. :raises NoPort: none is free."""
        host = self._host(family, server)
        with ExitStack() as unused:
            second = unused.enter_context(_socket(family))
            for port in self._candidates(host, step=2):
                if port + 1 in self._ports[1] and port + 1 not in self._used[host]:
                    first = unused.enter_context(_socket(family))
                    if _bind(first, host, port) and _bind(second, host, port + 1):
                        unused.pop_all()
                        ours, next_one = Address(host, port), Address(host, port + 1)
                        return self._relay(first, ours), self._relay(second, next_one)
                    first.close()
            raise NoPort

    def reopen(self, address: Address, public: str) -> RelaySocket:
        """Open one that an earlier process had. :raises NoPort: somebody else has it now.

        :param public: the host that its client was told.
        """
        sock = self.shelf.take(name_of(KIND, *address))
        if sock is None:
            sock = _socket(Family.IPV6 if ":" in address.host else Family.IPV4)
            if not _bind(sock, *address):
                sock.close()
                raise NoPort
            self.shelf.put(name_of(KIND, *address), sock)
        self._used[address.host].add(address.port)
        ends = address, Address(public, address.port)
        return RelaySocket(sock, ends, self._poller, self._forwarder, self._on_close)

    def open_tcp(self, family: Family, server: str) -> TcpRelaySocket:
        """Open one that peers connect to (RFC 6062). :raises NoPort: none is free."""
        host = self._host(family, server)
        for port in self._candidates(host, step=1):
            try:
                sock = listening_socket(SOCKET_FAMILIES[family], host, port)
            except OSError as error:
                if error.errno in NOT_THIS_PORT:
                    continue
                break  # no descriptors left, or the address itself is gone
            self._used[host].add(port)
            public = Address(self._public_of.get(host, host), port)
            return TcpRelaySocket(sock, public, self._forwarder.stats, self._on_close)
        raise NoPort

    def adopt(self, sock: socket.socket) -> RelaySocket:
        """Relay from a socket that another process has opened."""
        return self._relay(sock, Address(*sock.getsockname()[:2]))

    def _host(self, family: Family, server: str) -> str:
        """Where the client asked, if we relay from there: on a LAN that is the reachable one."""
        hosts = self._addresses[family]
        return server if server in hosts else hosts[0]

    def _candidates(self, host: str, step: int) -> Iterator[int]:
        """Ports that we do not use, in random order; at last every one of the range."""
        used, ports = self._used[host], self._ports[step]
        if not ports or max(len(used), self.in_use_at(host)) >= self.size:
            return
        count = len(ports)
        for _ in range(RANDOM_TRIES):
            port = ports[self._random_below(count)]
            if port not in used:
                yield port
        start = self._random_below(count)
        for place in range(start, start + count):
            port = ports[place % count]
            if port not in used:
                yield port

    def _relay(self, sock: socket.socket, ours: Address) -> RelaySocket:
        host, port = ours
        self._used[host].add(port)
        if self.shelf is not NO_SHELF:
            self.shelf.put(name_of(KIND, host, port), sock)
        public = self._public_of.get(host)
        ends = ours, (Address(public, port) if public else ours)
        return RelaySocket(sock, ends, self._poller, self._forwarder, self._on_close)

    def _closed(self, relay: RelaySocket | TcpRelaySocket) -> None:
        self._used[relay.address.host].discard(relay.address.port)
        if not relay.is_tcp and self.shelf is not NO_SHELF:
            self.shelf.drop(name_of(KIND, *relay.address))


def random_below(limit: int) -> int:
    """An unpredictable number, in half the time of ``secrets.randbelow``.

    Of 64 bits the remainder is as good as even: a port is had by one in 10^14 more often.
    """
    return int.from_bytes(os.urandom(8)) % limit


def _socket(family: Family) -> socket.socket:
    """An unbound socket. :raises NoPort: the process has no descriptors left."""
    try:
        sock = socket.socket(SOCKET_FAMILIES[family], DATAGRAMS)
    except OSError:
        raise NoPort from None
    if family is Family.IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    prepare(sock, family)
    return sock


def _bind(sock: socket.socket, host: str, port: int) -> bool:
    """Bind, or give False where the port is taken. :raises NoPort: the address itself is gone."""
    try:
        sock.bind((host, port))
    except OSError as error:
        if error.errno in NOT_THIS_PORT:
            return False
        sock.close()
        raise NoPort from None
    return True
