"""Clients over TLS and DTLS, and one function that connects by any of the four transports."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from config.certificate import self_signed
from tests.patience import PATIENCE
from tests.turn.live import Client, Listens, port_of
from turn.codec.framing import StreamFramer
from turn.routes import Transport
from turn.transport.dtls import MTU, datagrams_of


def everywhere(folder: Path) -> dict[str, Any]:
    """Settings of a relay that listens by all four transports."""
    certificate, key = self_signed(["127.0.0.1"], folder)
    return {
        "listen_tls": ["127.0.0.1:0"],
        "listen_dtls": ["127.0.0.1:0"],
        "tls_certificate": str(certificate),
        "tls_key": str(key),
    }


class TlsClient(Client):
    """The simple client, over TLS."""

    async def connect(self, port: int, **how: Any) -> "TlsClient":
        """Open the connection; its certificate is nobody's business here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        self._framer = StreamFramer()
        return self

    def close(self) -> None:
        """Be gone."""
        self._writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self, patience: float = PATIENCE) -> bytes:
        """The next message. :raises TimeoutError: there is none; EOFError: the stream ended."""
        assert self._framer is not None
        async with asyncio.timeout(patience):
            while not self._frames:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError
                self._frames += [bytes(frame) for frame in self._framer.feed(memoryview(data))]
            return self._frames.pop(0)


class DtlsClient(Client):
    """The simple client, over DTLS; ``shake`` before anything else."""

    async def connect(
        self, port: int, *, context: SSL.Context | None = None, **how: Any
    ) -> "DtlsClient":
        """Open the socket."""
        await super().connect(port, **how)
        self.connection = SSL.Connection(context or SSL.Context(SSL.DTLS_CLIENT_METHOD), None)
        self.connection.set_connect_state()
        self.connection.set_ciphertext_mtu(MTU)
        return self

    def begin_anew(self) -> None:
        """Forget the session, on the same port."""
        self.connection = SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD), None)
        self.connection.set_connect_state()

    def first_flight(self) -> bytes:
        """The hello that is to be sent next, with the cookie if there is one."""
        with suppress(SSL.WantReadError):
            self.connection.do_handshake()
        (hello,) = datagrams_of(self.connection)
        return hello

    async def prove_address(self) -> bytes:
        """Say hello, and return the cookie; gives that second hello (RFC 6347 §4.2.1)."""
        await super().send(self.first_flight())
        self.connection.bio_write(await super().receive())
        hello = self.first_flight()
        await super().send(hello)
        return hello

    async def shake(self) -> "DtlsClient":
        """Shake hands. :raises SSL.Error: the server refuses."""
        while True:
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                await self.flush()
                self.connection.bio_write(await super().receive())
            else:
                await self.flush()
                return self

    async def flush(self) -> None:
        """Send what OpenSSL has written."""
        for datagram in datagrams_of(self.connection):
            await super().send(datagram)

    async def send(self, data: bytes) -> None:
        """Send a message."""
        self.connection.send(data)
        await self.flush()

    async def receive(self, patience: float = PATIENCE) -> bytes:
        """The next message. :raises TimeoutError: there is none."""
        while True:
            try:
                return bytes(self.connection.recv(65536))
            except SSL.WantReadError:
                self.connection.bio_write(await super().receive(patience))


@asynccontextmanager
async def connected(service: Listens, transport: Transport) -> AsyncIterator[Client]:
    """A client by this transport, ready to ask."""
    port = port_of(service, transport.value)
    client: Client
    if transport is Transport.TLS:
        client = await TlsClient().connect(port)
    elif transport is Transport.DTLS:
        client = await (await DtlsClient().connect(port)).shake()
    else:
        client = await Client().connect(port, tcp=transport.is_stream)
    try:
        yield client
    finally:
        with suppress(OSError):
            client.close()
