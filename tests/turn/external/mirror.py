"""A STUN server that says what it is told to say."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from config.values import StunServer
from turn.codec import registry
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address

Say = Callable[[Message], Sequence[bytes]]


def answer(request: Message, host: str, port: int = 7, **changes: Any) -> bytes:
    """A Binding success response, as a server makes it but for the changes."""
    transaction_id = changes.get("transaction_id", request.transaction_id)
    method = changes.get("method", Method.BINDING)
    mapped = (registry.XOR_MAPPED_ADDRESS, Address(host, port))
    return build(method, MessageClass.SUCCESS, transaction_id, (mapped,), fingerprint=True)


class Mirror(asyncio.DatagramProtocol):
    """Answers each request with ``say``, at first by ``public``."""

    transport: asyncio.DatagramTransport
    last: tuple[str, int]
    """Who has asked last."""

    def __init__(self, public: str) -> None:
        self.public = public
        """"" : it is silent."""
        self.shift = 0
        """What the NAT adds to each port."""
        self.say: Say = lambda request: [self._truth(request)] if self.public else []
        self.asked: list[tuple[str, bytes]] = []
        """Who has asked, and the transaction id."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = parse_untrusted(data)
        assert (request.method, request.message_class) == (Method.BINDING, MessageClass.REQUEST)
        self.last = addr
        self.asked.append((addr[0], request.transaction_id))
        for reply in self.say(request):
            self.transport.sendto(reply, addr)

    def _truth(self, request: Message) -> bytes:
        return answer(request, self.public, self.last[1] + self.shift)

    @property
    def server(self) -> StunServer:
        """Where it is."""
        return StunServer(*self.transport.get_extra_info("sockname")[:2])


@asynccontextmanager
async def mirror(
    public: str = "203.0.113.7", host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Mirror]:
    """One that runs."""
    transport, made = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Mirror(public), local_addr=(host, port)
    )
    try:
        yield made
    finally:
        transport.close()


def nobody() -> StunServer:
    """A place where nobody listens, so that ICMP says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return StunServer(*sock.getsockname())
