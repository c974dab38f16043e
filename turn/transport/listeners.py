"""The relay's listening sockets: opened at start, kept in step with the machine's addresses."""

import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from config.turn import TurnSettings
from turn.codec.values import Address
from turn.routes import FiveTuple, Send
from turn.transport.accepting import StreamListener
from turn.transport.bind import bind_tcp, bind_udp
from turn.transport.queues import requests_apart
from turn.transport.stream import StreamShared
from turn.transport.udp import Shared, UdpListener

if TYPE_CHECKING:
    from turn.transport.dtls import DtlsContext

log = structlog.get_logger("turn")


class Listening(NamedTuple):
    """An address that the relay listens on, for people to read."""

    protocol: str
    host: str
    port: int


class DatagramListener(Protocol):
    """A UDP socket of the server's, for UDP or for DTLS."""

    protocol: str
    address: Address

    def tick(self) -> None:
        """Retransmit what waits for an answer."""

    def close(self) -> None:
        """Stop listening."""


Listen = Callable[[socket.socket], DatagramListener]


class Bind(NamedTuple):
    """Where bound sockets come from: of a host and a port, or an ``OSError``."""

    udp: Callable[[str, int], socket.socket] = bind_udp
    tcp: Callable[[str, int], socket.socket] = bind_tcp
    requests: Callable[[socket.socket], socket.socket | None] = requests_apart
    """The second queue of a UDP socket (``queues``), if it can have one."""


class ListenError(OSError):
    """An address cannot be listened on; the message names it and says why."""


class Listeners:
    """The UDP sockets, one a local address, and the TCP and TLS servers."""

    def __init__(
        self,
        udp: Sequence[tuple[str, int]],
        shared: Shared,
        stream: StreamShared,
        bind: Bind = Bind(),  # noqa: B008 - immutable
    ) -> None:
        self._bind = bind
        self._datagram_endpoints = [(Listening("udp", *place), self._listen_udp) for place in udp]
        self._shared = shared
        self._stream_shared = stream
        self._datagram: dict[Listening, DatagramListener] = {}
        """By what was asked for, whose port may have been 0."""
        self._addresses: list[str] = []
        self._missing: set[Listening] = set()
        """Where it is to listen and does not yet: told once, and tried at every tick."""
        self._streams: list[StreamListener] = []
        self.listening: list[Listening] = []

    @property
    def senders(self) -> Mapping[Address, Send]:
        """How packets leave from each UDP address."""
        return self._shared.senders

    def add_dtls(self, dtls: Sequence[tuple[str, int]], context: "DtlsContext") -> None:
        """Have ``open_datagram`` listen for DTLS here too."""
        from turn.transport.dtls import DtlsListener, Limits  # noqa: PLC0415 - an extra, as OpenSSL

        limits = Limits(self._stream_shared.strangers, self._stream_shared.handshakes)

        def listen(sock: socket.socket) -> DatagramListener:
            return DtlsListener(sock, self._shared, limits, context)

        self._datagram_endpoints += [(Listening("dtls", *place), listen) for place in dtls]

    def open_datagram(self, addresses: Iterable[str]) -> None:
        """Listen on each local address that is asked for. :raises ListenError: one cannot be."""
        for place, listen in self._wanted(addresses).items():
            self._open_datagram(place, listen)

    async def open_stream(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, plain: bool = False
    ) -> None:
        """Accept TCP or TLS connections. :raises ListenError: the address cannot be had.

        :param plain: with TLS: accept those as well that begin without.
        """
        beside = StreamListener(self._stream_shared, None) if tls and plain else None
        listener = StreamListener(self._stream_shared, tls, beside)
        name = listener.transport.value
        try:
            sock = self._bind.tcp(host, port)
        except OSError as error:
            raise explained(error, name, host, port) from None
        port = sock.getsockname()[1]
        try:
            await listener.start(sock)
        except OSError as error:  # somebody bound the port as we did, and was first to listen
            sock.close()
            raise explained(error, name, host, port) from None
        for each in (listener, beside) if beside else (listener,):
            self._streams.append(each)
            self.listening.append(Listening(each.transport.value, host, port))

    async def take_over(self, sock: socket.socket, client: FiveTuple) -> None:
        """Serve a client whose TCP or TLS connection another worker has; ``sock`` leads there."""
        for listener in self._streams:
            if listener.transport is client.transport:
                await listener.take_over(sock, client)
                return
        sock.close()

    def follow(self, addresses: Iterable[str]) -> None:
        """Open what is new, close what is gone; a failure is told, and tried again at each tick."""
        self._addresses = list(addresses)
        wanted = self._wanted(self._addresses)
        self._missing &= wanted.keys()
        for place in self._datagram.keys() - wanted.keys():
            gone = self._datagram.pop(place)
            log.info("address gone", **place._asdict())
            gone.close()
            closed = Listening(gone.protocol, *gone.address)
            self.listening = [it for it in self.listening if it != closed]
        self._open_new(wanted)

    def reload(self, settings: TurnSettings) -> None:
        """Hold strangers to these settings from now on."""
        self._shared.replies.set_rate(settings.max_unproved_replies_per_second)
        self._shared.bindings.set_rate(settings.max_bindings_per_second)
        self._stream_shared.handshakes.set_rate(settings.max_tls_handshakes_per_second)
        self._stream_shared.strangers.most = settings.max_unauthenticated_per_address
        self._stream_shared.strangers.timeout = settings.first_request_timeout

    def sweep(self) -> None:
        """Look for connections without a purpose."""
        for listener in self._streams:
            listener.sweep()

    def tick(self) -> None:
        """Retransmit, and try again what could not be opened; to be called about once a second."""
        for listener in self._datagram.values():
            listener.tick()
        if self._missing:
            self._open_new(self._wanted(self._addresses))

    async def close(self) -> None:
        """Stop listening and close every connection."""
        for datagram in self._datagram.values():
            datagram.close()
        self._datagram.clear()
        for listener in self._streams:
            await listener.stop()
        self._streams.clear()

    def _wanted(self, addresses: Iterable[str]) -> dict[Listening, Listen]:
        """The addresses to bind."""
        wanted: dict[Listening, Listen] = {}
        for place, listen in self._datagram_endpoints:
            for each in hosts_of(place.host, addresses):
                wanted[place._replace(host=each)] = listen
        return wanted

    def _open_new(self, wanted: Mapping[Listening, Listen]) -> None:
        for place in wanted.keys() - self._datagram.keys():
            again = place in self._missing
            try:
                self._open_datagram(place, wanted[place])
            except ListenError as error:
                self._missing.add(place)
                if not again:
                    log.warning("new address not listened on; trying again", reason=error.strerror)
            else:
                self._missing.discard(place)
                log.info(
                    "address listened on at last" if again else "address new", **place._asdict()
                )

    def _open_datagram(self, place: Listening, listen: Listen) -> None:
        try:
            sock = self._bind.udp(place.host, place.port)
        except OSError as error:
            raise explained(error, *place) from None
        self._datagram[place] = listener = listen(sock)
        self.listening.append(Listening(listener.protocol, *listener.address))

    def _listen_udp(self, sock: socket.socket) -> DatagramListener:
        return UdpListener(sock, self._bind.requests(sock), self._shared)


def hosts_of(host: str, addresses: Iterable[str]) -> list[str]:
    """The addresses that a UDP endpoint stands for: a wildcard, each local one of its family."""
    if not ip_address(host).is_unspecified:
        return [host]
    return [address for address in addresses if (":" in address) == (":" in host)]


def explained(error: OSError, protocol: str, host: str, port: int) -> ListenError:
    """The error of a bind, for people."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ListenError(
        error.errno, f"the relay cannot listen on {place} ({protocol}): {error.strerror}"
    )
