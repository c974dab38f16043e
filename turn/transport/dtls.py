"""TURN over DTLS (RFC 7350): one UDP socket, and a session for each client that it has seen answer.

A client that has not returned our cookie leaves nothing behind (RFC 6347 §4.2.1): one waiting
connection, shared by all, makes the cookies and checks them.
"""

import hashlib
import hmac
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from OpenSSL import SSL

from config.tls import CIPHERS
from turn.auth.authenticate import Now
from turn.codec.demux import Kind, classify
from turn.codec.errors import Malformed
from turn.codec.values import Address
from turn.relay.batch import READS_PER_EVENT
from turn.routes import Buffer, ClientRoutes, Endpoint, FiveTuple, Transport
from turn.stats import DropReason
from turn.transport.accepting import ALPN
from turn.transport.limits import ConnectionLimit, ReplyLimit
from turn.transport.udp import SEND_INDICATION, Shared

DTLS_1_2 = 0xFEFD
MTU = 1200
"""Bytes of a handshake datagram: what passes nearly everywhere."""
MOST_BYTES = 65536
IDLE_TIMEOUT = 60.0
"""Seconds that a session without an allocation may say nothing."""
RECORD_HEAD = 13
CLIENT_HELLO_LENGTH = 14
RANDOM = slice(RECORD_HEAD + 12 + 2, RECORD_HEAD + 12 + 2 + 32)
"""Of a ClientHello, behind the heads of record and message and the version (RFC 6347 §4.2.2): the
same one with the cookie as without, and in what comes twice."""
LONGEST_RECORD = RECORD_HEAD + (1 << 14)
"""Bytes (RFC 6347 §4.1). OpenSSL reads as many of a first flight, and no more."""
HANDSHAKE, CLIENT_HELLO = 22, 1
VERIFY_COOKIE_BYTES = 32
COOKIE_LIFETIME = 60.0
"""Seconds that a cookie is made for, and good for as many more: who has had an address for a while
must not keep what draws handshakes to the next who has it (RFC 6347 §4.2.1)."""


class DtlsContext:
    """The certificate, and the cookies that prove an address."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Load it. :raises OSError: the files are no certificate and its key."""
        self._secret = secrets.token_bytes(32)
        self.context = self._make(certificate, key)

    def load(self, certificate: Path, key: Path) -> None:
        """Use these files for every session from now on. :raises OSError: as above."""
        self.context = self._make(certificate, key)

    def _make(self, certificate: Path, key: Path) -> SSL.Context:
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        options = (SSL.OP_NO_QUERY_MTU, SSL.OP_COOKIE_EXCHANGE, SSL.OP_NO_RENEGOTIATION,
                   SSL.OP_NO_COMPRESSION, SSL.OP_CIPHER_SERVER_PREFERENCE)  # fmt: skip
        for option in options:
            context.set_options(option or 0)  # None: an OpenSSL without it
        context.set_min_proto_version(DTLS_1_2)
        context.set_cipher_list(CIPHERS.encode())
        context.set_cookie_generate_callback(lambda connection: self._cookie(connection, 0))
        context.set_cookie_verify_callback(self._is_ours)
        # The first that a client offers and we speak; where there is none it is served too.
        context.set_alpn_select_callback(
            lambda _, offered: next(
                (name for name in offered if name.decode(errors="replace") in ALPN),
                SSL.NO_OVERLAPPING_PROTOCOLS,
            )
        )
        try:
            context.use_certificate_chain_file(str(certificate))
            context.use_privatekey_file(str(key))
            context.check_privatekey()
        except SSL.Error as error:
            raise OSError(f"{certificate}, {key}: not usable for DTLS: {error}") from None
        return context

    def _cookie(self, connection: SSL.Connection, age: int) -> bytes:
        made = int(time.monotonic() // COOKIE_LIFETIME) - age
        proved = repr((made, connection.get_app_data())).encode()
        return hmac.digest(self._secret, proved, hashlib.sha256)[:VERIFY_COOKIE_BYTES]

    def _is_ours(self, connection: SSL.Connection, cookie: bytes) -> bool:
        return any(hmac.compare_digest(cookie, self._cookie(connection, age)) for age in (0, 1))

    def connection(self) -> SSL.Connection:
        """A server's side without a socket: bytes go in and out by hand."""
        made = SSL.Connection(self.context, None)
        made.set_accept_state()
        made.set_ciphertext_mtu(MTU)
        return made


class Session:
    """One client's DTLS session."""

    def __init__(
        self, connection: SSL.Connection, sock: socket.socket, client: FiveTuple, random: bytes
    ) -> None:
        self.client = client
        self.random = random
        """Of the hello that it began with."""
        self.established = False
        self.is_stranger = True
        self.created = self.seen = time.monotonic()
        self._connection = connection
        self._sock = sock

    def receive(self, datagram: Buffer) -> Iterator[bytes]:
        """The messages in a datagram. :raises SSL.Error: the session is over."""
        self.seen = time.monotonic()
        if datagram:
            self._connection.bio_write(bytes(datagram))
        try:
            if not self.established:
                self._connection.do_handshake()
                self.established = True
            while True:
                yield self._connection.recv(MOST_BYTES)
        except SSL.WantReadError:
            pass
        finally:
            self._answer()

    def send(self, data: Buffer, _: Endpoint) -> None:
        """Send one message. :raises OSError: it is too long for a record, or is not to be sent."""
        try:
            self._connection.send(bytes(data))
        except SSL.Error as error:
            raise OSError(str(error)) from None
        self._flush()

    def retransmit(self) -> None:
        """Send the last flight of the handshake again where its time is over."""
        if not self.established:
            self._connection.DTLSv1_handle_timeout()
            self._answer()

    def close(self) -> None:
        """Tell the client that it is over."""
        with suppress(SSL.Error):
            self._connection.shutdown()
            self._answer()

    def _answer(self) -> None:
        """Send what OpenSSL has to say; what the kernel does not take is lost, as on the way."""
        with suppress(OSError):
            self._flush()

    def _flush(self) -> None:
        """Send what OpenSSL has written. :raises OSError: the kernel does not take it."""
        for datagram in datagrams_of(self._connection):
            self._sock.sendto(datagram, self.client.client)


class Limits(NamedTuple):
    """What clients by DTLS share with those by TLS."""

    strangers: ConnectionLimit
    handshakes: ReplyLimit


class DtlsListener:
    """A DTLS address of the server."""

    protocol = "dtls"

    def __init__(
        self,
        sock: socket.socket,
        shared: Shared,
        limits: Limits,
        context: DtlsContext,
    ) -> None:
        self._sock = sock
        self._shared = shared
        self._strangers, self._handshakes = limits
        self._context = context
        self._waiting = context.connection()
        self._sessions: dict[Endpoint, Session] = {}
        self._buffer = memoryview(bytearray(MOST_BYTES))
        self._clip = slice(None) if sock.family == socket.AF_INET else slice(2)
        self.address = Address(*sock.getsockname()[:2])
        shared.poller.add(sock, self._read)

    def __len__(self) -> int:
        return len(self._sessions)

    def close(self) -> None:
        """Stop listening and end every session."""
        for session in list(self._sessions.values()):
            session.close()
            self._end(session)
        self._shared.poller.remove(self._sock)
        self._sock.close()

    def tick(self) -> None:
        """Retransmit, and end what has no purpose; to be called about once a second."""
        now = time.monotonic()
        for session in list(self._sessions.values()):
            has_allocation = self._shared.engine.table.get(session.client) is not None
            patience = IDLE_TIMEOUT if session.established else self._strangers.timeout
            since = session.seen if session.established else session.created
            try:
                session.retransmit()
            except SSL.Error:
                self._end(session)
            else:
                overdue = now - since > patience
                if not has_allocation and (overdue or not self._may_stay(session)):
                    session.close()
                    self._end(session)

    # The road of a datagram ----------------------------------------------------------------

    def _read(self, _: int, __: float) -> int:
        for count in range(READS_PER_EVENT):
            try:
                size, source = self._sock.recvfrom_into(self._buffer)
            except BlockingIOError:
                return count
            except OSError:  # the ICMP error of an earlier packet
                continue
            self._take(self._buffer[:size], source[self._clip])
        return READS_PER_EVENT

    def _take(self, datagram: memoryview, source: Endpoint) -> None:
        session = self._sessions.get(source)
        # A client that has given up may begin anew on its port (RFC 6347 §4.2.8); but a hello that
        # comes again, late or out of a recording, is the session's own.
        if session is None or (
            is_client_hello(datagram) and bytes(datagram[RANDOM]) != session.random
        ):
            self._greet(datagram, source)
        else:
            self._carry(session, datagram)

    def _greet(self, datagram: memoryview, source: Endpoint) -> None:
        """Answer a first flight with a cookie, or begin a session with who has one."""
        if not is_client_hello(datagram):
            self._shared.stats.drop(DropReason.NOT_OURS)
            return
        if len(datagram) > LONGEST_RECORD:  # the rest would be read as the next client's
            self._shared.stats.drop(DropReason.MALFORMED)
            return
        waiting = self._waiting
        waiting.set_app_data(tuple(source))
        waiting.bio_write(bytes(datagram))
        try:
            waiting.DTLSv1_listen()
        except SSL.WantReadError:
            self._send_cookie(waiting, source)
            return
        except SSL.Error:
            self._waiting = self._context.connection()
            self._shared.stats.drop(DropReason.MALFORMED)
            return
        self._waiting = self._context.connection()
        self._begin(waiting, source, bytes(datagram[RANDOM]))

    def _send_cookie(self, waiting: SSL.Connection, source: Endpoint) -> None:
        if not self._shared.replies.allow(source[0], time.monotonic()):
            for _ in datagrams_of(waiting):
                self._shared.stats.drop(DropReason.REPLY_LIMIT)
            return
        for answer in datagrams_of(waiting):
            try:
                self._sock.sendto(answer, source)
            except OSError:
                self._shared.stats.drop(DropReason.SEND_FAILED)

    def _begin(self, connection: SSL.Connection, source: Endpoint, random: bytes) -> None:
        if not self._handshakes.allow(source[0], time.monotonic()):
            self._shared.stats.drop(DropReason.TOO_MANY_HANDSHAKES)
            return
        previous = self._sessions.get(source)
        if previous is not None:  # the client has begun anew on the same port
            self._end(previous)
        if not self._strangers.enter(source[0]):
            self._shared.stats.drop(DropReason.TOO_MANY_CONNECTIONS)
            return
        client = FiveTuple(Transport.DTLS, Address(*source), self.address)
        session = self._sessions[source] = Session(connection, self._sock, client, random)
        self._carry(session, memoryview(b""))

    def _carry(self, session: Session, datagram: memoryview) -> None:
        try:
            for message in session.receive(datagram):
                self._handle(session, memoryview(message))
                if self._sessions.get(session.client.client) is not session:
                    break
        except SSL.Error as error:
            if not isinstance(error, SSL.ZeroReturnError):
                self._shared.stats.drop(DropReason.MALFORMED)
            self._end(session)

    def _handle(self, session: Session, message: memoryview) -> None:
        now, shared = time.monotonic(), self._shared
        kind = classify(message[0])
        if kind is Kind.CHANNEL:
            shared.forwarder.client_to_peer(self._routes(session), message, now)
        elif message[:2] == SEND_INDICATION:
            shared.forwarder.send_indication(self._routes(session), message, now)
        elif kind is Kind.STUN:
            self._request(session, message, now)
        else:
            shared.stats.drop(DropReason.NOT_OURS)

    def _request(self, session: Session, message: memoryview, now: float) -> None:
        engine = self._shared.engine
        try:
            reply = engine.handle(message, session.client, session.send, Now(now, time.time()))
        except Malformed:
            self._shared.stats.drop(DropReason.MALFORMED)
            return
        has_allocation = engine.table.get(session.client) is not None
        if has_allocation:
            self._acquaint(session)
        if reply is not None:
            try:
                session.send(reply.data, session.client.client)
            except OSError:  # the client asks again
                self._shared.stats.drop(DropReason.SEND_FAILED)
        if not has_allocation and not self._may_stay(session):
            session.close()
            self._end(session)

    def _routes(self, session: Session) -> ClientRoutes | None:
        return self._shared.routes.of(session.client)

    def _may_stay(self, session: Session) -> bool:
        """Whether a session without an allocation has a place among its address's strangers.

        Also one that had an allocation: else a user could keep any number of sessions.
        """
        if not session.is_stranger:
            session.is_stranger = self._strangers.enter(session.client.client.host)
            if not session.is_stranger:
                self._shared.stats.drop(DropReason.TOO_MANY_CONNECTIONS)
        return session.is_stranger

    def _acquaint(self, session: Session) -> None:
        if session.is_stranger:
            session.is_stranger = False
            self._strangers.leave(session.client.client.host)

    def _end(self, session: Session) -> None:
        """Let go of a session, and of its allocation."""
        if self._sessions.get(session.client.client) is session:
            del self._sessions[session.client.client]
        self._acquaint(session)
        self._shared.engine.disconnected(session.client)


def is_client_hello(datagram: memoryview) -> bool:
    """Whether a datagram begins with an unprotected ClientHello (RFC 6347 §4.1, §4.2.2)."""
    return (
        len(datagram) >= CLIENT_HELLO_LENGTH
        and datagram[0] == HANDSHAKE
        and not any(datagram[3:5])
        and datagram[RECORD_HEAD] == CLIENT_HELLO
    )


def datagrams_of(connection: SSL.Connection) -> Iterator[bytes]:
    """What OpenSSL has written, whole records together in datagrams of at most ``MTU`` bytes."""
    written = b""
    try:
        while True:
            written += connection.bio_read(MOST_BYTES)
    except SSL.WantReadError:
        pass
    start = end = 0
    while end < len(written):
        record_end = end + RECORD_HEAD + int.from_bytes(written[end + 11 : end + 13])
        if end > start and record_end - start > MTU:
            yield written[start:end]
            start = end
        end = record_end
    if start < end:
        yield written[start:end]
