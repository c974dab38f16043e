"""A relay with real sockets on loopback, in this process, and a client that speaks to it."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from config.turn import TurnSettings
from tests.patience import PATIENCE
from turn.auth.credentials import long_term_key
from turn.codec import registry
from turn.codec.framing import StreamFramer
from turn.codec.integrity import Integrity
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.server import TurnService
from turn.telling import Tell, to_nobody
from turn.transport.listeners import Listening

UDP = (registry.REQUESTED_TRANSPORT, 17)


def settings(**changes: Any) -> TurnSettings:
    """Settings of a relay on loopback, where every port is free to be had."""
    return TurnSettings.model_validate(
        {
            "listen": ["127.0.0.1:0"],
            "data_plane": "userspace",
            "users": {"alice": "pw"},
            "allow_peers": ["127.0.0.0/8", "::1/128"],
            "max_allocations_per_user": 0,
            "max_allocations_per_address": 0,
            "max_unproved_replies_per_second": 100_000,
            "max_bindings_per_second": 100_000,
            "max_tls_handshakes_per_second": 100_000,
        }
        | changes
    )


@asynccontextmanager
async def relay(tell: Tell = to_nobody, /, **changes: Any) -> AsyncIterator[TurnService]:
    """A running relay. :param tell: hears of what happens."""
    service = TurnService(settings(**changes), tell=tell)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


class Listens(Protocol):
    """A relay, in one process or several."""

    @property
    def addresses(self) -> list[Listening]:
        """Where it listens."""


def port_of(service: Listens, protocol: str = "udp") -> int:
    """The port that the relay took."""
    return next(place.port for place in service.addresses if place.protocol == protocol)


class Client:
    """A TURN client over UDP or TCP, as simple as can be."""

    def __init__(self, username: str = "alice", password: str = "pw") -> None:
        self.username = username
        self.key = long_term_key(username, "icebroker", password)
        self.nonce: str | None = None
        self.sock: socket.socket
        self._framer: StreamFramer | None = None
        self._frames: list[bytes] = []

    async def connect(
        self,
        port: int,
        *,
        tcp: bool = False,
        host: str = "127.0.0.1",
        source: str = "",
        window: int = 0,
    ) -> "Client":
        """Open the socket.

        :param source: our own address; empty: the kernel's choice.
        :param window: bytes of TCP that may arrive before we read; 0: the kernel's choice.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        if source:
            self.sock.bind((source, 0))
        self.sock.setblocking(False)
        if tcp:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if window:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, window)
        self._framer = StreamFramer() if tcp else None
        await asyncio.get_running_loop().sock_connect(self.sock, (host, port))
        return self

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, patience: float = PATIENCE) -> bytes:
        """The next message. :raises TimeoutError: there is none; EOFError: the stream ended."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience):
            if self._framer is None:
                return await loop.sock_recv(self.sock, 65536)
            while not self._frames:
                data = await loop.sock_recv(self.sock, 65536)
                if not data:
                    raise EOFError
                self._frames += [bytes(frame) for frame in self._framer.feed(memoryview(data))]
            return self._frames.pop(0)

    def encode(self, method: Method, *attributes: Any) -> bytes:
        """A request, with credentials once there is a nonce."""
        signed = self.nonce is not None
        credentials = (
            (registry.USERNAME, self.username),
            (registry.REALM, "icebroker"),
            (registry.NONCE, self.nonce),
        )
        return build(
            method,
            MessageClass.REQUEST,
            secrets.token_bytes(12),
            (*attributes, *(credentials if signed else ())),
            key=self.key if signed else None,
            integrity=Integrity.SHA1 if signed else Integrity.NONE,
        )

    async def allocate(self) -> Address:
        """Allocate; gives the relayed transport address."""
        relayed = (await self.request(Method.ALLOCATE, UDP)).get(registry.XOR_RELAYED_ADDRESS)
        assert relayed is not None
        return relayed

    async def request(self, method: Method, *attributes: Any) -> Message:
        """Ask, a second time with credentials where they are wanted; gives the reply."""
        while True:
            reply = await self._ask(self.encode(method, *attributes))
            nonce = reply.get(registry.NONCE)
            if nonce is None or self.nonce is not None:
                return reply
            self.nonce = nonce

    async def _ask(self, request: bytes) -> Message:
        """The reply to a request, and not to one of whoever had this port before."""
        await self.send(request)
        while True:
            reply = parse_untrusted(await self.receive())
            if reply.transaction_id == request[8:20]:
                return reply
