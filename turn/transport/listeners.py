"""The relay's listening sockets: opened at start, kept in step with the machine's addresses."""

import ssl
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import NamedTuple

import structlog

from config.schema import TurnSettings
from turn.transport.stream import StreamListener, StreamShared, bind_tcp
from turn.transport.udp import Shared, UdpListener, bind_udp

log = structlog.get_logger("turn")


class Listening(NamedTuple):
    """An address that the relay listens on, for people to read."""

    protocol: str
    host: str
    port: int


class ListenError(OSError):
    """An address cannot be listened on; the message names it and says why."""


class Listeners:
    """The UDP sockets, one a local address, and the TCP and TLS servers."""

    def __init__(
        self, udp: Sequence[tuple[str, int]], shared: Shared, stream: StreamShared
    ) -> None:
        self._udp_endpoints = tuple(udp)
        self._shared = shared
        self._stream_shared = stream
        self._udp: dict[tuple[str, int], UdpListener] = {}
        self._streams: list[StreamListener] = []
        self.listening: list[Listening] = []

    def open_udp(self, addresses: Iterable[str]) -> None:
        """Listen on each local address that is asked for. :raises ListenError: one cannot be."""
        for host, port in self._wanted(addresses):
            self._open_udp(host, port)

    async def open_stream(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        """Accept TCP or TLS connections. :raises ListenError: the address cannot be had."""
        listener = StreamListener(self._stream_shared, tls)
        name = listener.transport.value
        try:
            sock = bind_tcp(host, port)
        except OSError as error:
            raise _explained(error, name, host, port) from None
        port = sock.getsockname()[1]
        await listener.start(sock)
        self._streams.append(listener)
        self.listening.append(Listening(name, host, port))

    def follow(self, addresses: Iterable[str]) -> None:
        """Open what is new, close what is gone; a failure is logged, and tried again next time."""
        wanted = set(self._wanted(addresses))
        for endpoint in self._udp.keys() - wanted:
            log.info("address gone", protocol="udp", host=endpoint[0], port=endpoint[1])
            self._udp.pop(endpoint).close()
            self.listening = [it for it in self.listening if it != ("udp", *endpoint)]
        for endpoint in wanted - self._udp.keys():
            try:
                self._open_udp(*endpoint)
            except ListenError as error:
                log.warning("new address not listened on", reason=str(error))
            else:
                log.info("address new", protocol="udp", host=endpoint[0], port=endpoint[1])

    def reload(self, settings: TurnSettings) -> None:
        """Hold strangers to these settings from now on."""
        self._shared.replies.set_rate(settings.max_unproved_replies_per_second)
        self._shared.bindings.set_rate(settings.max_bindings_per_second)
        self._stream_shared.strangers.most = settings.max_unauthenticated_per_address
        self._stream_shared.strangers.timeout = settings.first_request_timeout

    def sweep(self) -> None:
        """Look for connections without a purpose."""
        for listener in self._streams:
            listener.sweep()

    async def close(self) -> None:
        """Stop listening and close every connection."""
        for udp in self._udp.values():
            udp.close()
        self._udp.clear()
        for listener in self._streams:
            await listener.stop()
        self._streams.clear()

    def _wanted(self, addresses: Iterable[str]) -> list[tuple[str, int]]:
        """The addresses to bind: a wildcard stands for each local address of its family."""
        wanted: dict[tuple[str, int], None] = {}
        for host, port in self._udp_endpoints:
            if not ip_address(host).is_unspecified:
                wanted[host, port] = None
            else:
                for address in addresses:
                    if (":" in address) == (":" in host):
                        wanted[address, port] = None
        return list(wanted)

    def _open_udp(self, host: str, port: int) -> None:
        try:
            sock = bind_udp(host, port)
        except OSError as error:
            raise _explained(error, "udp", host, port) from None
        listener = UdpListener(sock, self._shared)
        # The key is what was asked for: the port may have been 0.
        self._udp[host, port] = listener
        self.listening.append(Listening("udp", *listener.address))


def _explained(error: OSError, protocol: str, host: str, port: int) -> ListenError:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ListenError(
        error.errno, f"the relay cannot listen on {place} ({protocol}): {error.strerror}"
    )
