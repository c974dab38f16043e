"""DTLS as a way to a server (RFC 7350); needs pyOpenSSL."""

import asyncio

from OpenSSL import SSL

from turn.doctor.wire import UdpWire

MTU = 1200
LONGEST_RECORD = 65535
CHECK = 0.25
"""Seconds between looks at whether the handshake has to send something again."""


class DtlsWire:
    """A DTLS session over UDP; the certificate is not judged."""

    retransmits = True

    def __init__(self, udp: UdpWire) -> None:
        self._udp = udp
        self.local = udp.local
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD)
        context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
        context.set_options(SSL.OP_NO_QUERY_MTU or 0)
        self._connection = SSL.Connection(context, None)
        self._connection.set_ciphertext_mtu(MTU)
        self._connection.set_connect_state()

    @classmethod
    async def open(cls, host: str, port: int) -> "DtlsWire":
        """Shake hands. :raises OSError: there is no DTLS; cancelled where nothing answers."""
        wire = cls(await UdpWire.open(host, port))
        try:
            await wire._handshake()
        except BaseException:
            wire._udp.close()
            raise
        return wire

    def certificate(self) -> bytes:
        """The server's certificate, DER."""
        found = self._connection.get_peer_certificate(as_cryptography=True)
        if found is None:
            return b""
        from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - rare

        return found.public_bytes(Encoding.DER)

    async def send(self, data: bytes) -> None:
        """Send a message in a record of its own."""
        self._connection.send(data)
        await self._flush()

    async def receive(self) -> bytes:
        """The next message. :raises OSError: the session is over."""
        while True:
            try:
                return self._connection.recv(LONGEST_RECORD)
            except SSL.WantReadError:
                self._connection.bio_write(await self._udp.receive())
            except SSL.Error:
                raise ConnectionResetError("the server ended the DTLS session") from None

    def close(self) -> None:
        """Close the socket."""
        self._udp.close()

    async def _handshake(self) -> None:
        while True:
            try:
                self._connection.do_handshake()
                return await self._flush()
            except SSL.WantReadError:
                await self._flush()
            except SSL.Error:
                raise ConnectionRefusedError("the port does not speak DTLS") from None
            try:
                async with asyncio.timeout(CHECK):
                    self._connection.bio_write(await self._udp.receive())
            except TimeoutError:
                self._connection.DTLSv1_handle_timeout()

    async def _flush(self) -> None:
        while True:
            try:
                await self._udp.send(self._connection.bio_read(LONGEST_RECORD))
            except SSL.WantReadError:
                return
