"""A UDP address of the server: reads datagrams and hands each to who decides or who carries."""

import errno
import socket
import time
from dataclasses import dataclass
from functools import lru_cache

from turn.allocation.engine import Engine, Reply
from turn.auth.authenticate import Now
from turn.codec.demux import Kind, classify
from turn.codec.errors import Malformed
from turn.codec.proxy import parse_untrusted
from turn.codec.values import Address
from turn.relay.batch import Inbox, address_of
from turn.relay.forward import Forwarder
from turn.relay.poll import Poller
from turn.routes import Buffer, FiveTuple, RouteTable, Send, Transport, key_of
from turn.stats import DropReason, Stats
from turn.transport.limits import ReplyLimit
from turn.transport.proxies import Proxies, UdpProxied

SEND_INDICATION = b"\x00\x16"
SEND = int.from_bytes(SEND_INDICATION)
UDP = Transport.UDP
BINDING_SUCCESS = b"\x01\x01"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all listeners work with."""

    engine: Engine
    forwarder: Forwarder
    routes: RouteTable
    stats: Stats
    poller: Poller
    replies: ReplyLimit
    bindings: ReplyLimit
    senders: dict[Address, Send]
    """By our address: how a reply leaves from another one than was asked (RFC 5780)."""
    proxies: Proxies

    def may_reply(self, reply: bytes, host: str, now: float) -> bool:
        """Whether a reply may go to a host that has proved nothing; it is counted then.

        An error takes of the Bindings' share too, so that a victim gets no more bytes of both
        than of errors alone. Not the other way: however many Bindings a NAT's clients ask for,
        they are challenged, and get to the relay.
        """
        if reply[:2] == BINDING_SUCCESS:
            return self.bindings.allow(host, now)
        if not self.replies.allow(host, now):
            return False
        self.bindings.charge(host, now, self.replies.cost)
        return True


class UdpListener:
    """One UDP socket on one local address, so that replies leave by the address that was asked."""

    protocol = "udp"

    def __init__(self, sock: socket.socket, requests: socket.socket | None, shared: Shared) -> None:
        """Read from both; send from the first.

        :param requests: the address's second queue, if it has one (``queues``).
        """
        self._sock = sock
        self._shared = shared
        self._send = sock.sendto
        self._forwarder = shared.forwarder
        self.address = Address(*sock.getsockname()[:2])
        self._clients = shared.routes.of_listener(Transport.UDP, self.address)
        shared.senders[self.address] = self._send
        self._proxied = UdpProxied(shared.engine, sock, self.address)
        self._inbox = Inbox(sock.family)
        self._requests = requests
        for each in self._sockets:
            read = self._read_requests if each is requests else self._read
            shared.poller.add(each, self._read_proxied if shared.proxies else read)

    @property
    def _sockets(self) -> tuple[socket.socket, ...]:
        return (self._sock, self._requests) if self._requests else (self._sock,)

    def tick(self) -> None:
        """Nothing: over UDP the clients retransmit."""

    def close(self) -> None:
        """Stop listening."""
        del self._shared.senders[self.address]
        for each in self._sockets:
            self._shared.poller.remove(each)
            each.close()

    def _read(self, descriptor: int, now: float) -> int:
        """Read what waits, up to a bound; gives the number of datagrams."""
        inbox, forwarder, clients = self._inbox, self._forwarder, self._clients
        buffer, view, head, begin = inbox.buffer, inbox.view, inbox.head, inbox.begin
        sizes = inbox.receive(descriptor)
        for slot, size in zip(inbox.slots, sizes, strict=False):
            client, first, length = head.unpack_from(buffer, slot)
            start = slot + begin
            if 0x4000 <= first < 0x8000 and size:
                forwarder.carry(
                    clients.get(client), first, view, start + 4, length, start + size, now
                )
            elif first == SEND and size > 1:
                forwarder.send_indication(clients.get(client), view[start : start + size], now)
            else:
                datagram = view[start : start + size]
                self._take(datagram, address_of(client), Now(now, time.time()))
        return len(sizes)

    def _read_requests(self, descriptor: int, _: float) -> int:
        """The same of the second queue, where there is nothing to carry.

        Read all, decide all, answer all: in turns, the kernel's way of a packet and ours would
        push one another out of the processor's caches, which was a fifth of an allocation's cost.
        """
        inbox, send, replies = self._inbox, self._send, []
        sizes = inbox.receive(descriptor)
        now = Now(time.monotonic(), time.time())
        for slot, size in zip(inbox.slots, sizes, strict=False):
            key, first, _ = inbox.head.unpack_from(inbox.buffer, slot)
            start, client = slot + inbox.begin, client_of(key, self.address)
            if first < 0x400 and first != SEND and size > 1:
                reply = self._decide(inbox.buffer[start : start + size], client, send, now)
                if reply is not None:
                    replies.append((reply, client.client))
            else:  # of a start, before the kernel was told how to sort
                self._take(inbox.view[start : start + size], client.client, now)
        for reply, source in replies:
            self._reply(reply, source, send)
        return len(sizes)

    def _read_proxied(self, descriptor: int, monotonic: float) -> int:
        """The same where some datagrams come through proxies."""
        waiting, now = self._inbox.datagrams(descriptor), Now(monotonic, time.time())
        for datagram, source in waiting:
            self._take(datagram, source, now)
        return len(waiting)

    def _take(self, datagram: memoryview, source: Address, now: Now) -> None:
        client, stats = source, self._shared.stats
        send: Send = self._send
        if self._shared.proxies.trusts(client.host):
            try:
                header = parse_untrusted(datagram)
            except Malformed:
                stats.drop(DropReason.NO_PROXY_HEADER)
                return
            client, send = self._proxied.said(source, header.client or client)
            datagram = datagram[header.size :]
        kind = classify(datagram[0]) if datagram else Kind.OTHER
        if kind is Kind.CHANNEL:
            self._forwarder.client_to_peer(
                self._clients.get(key_of(client)), datagram, now.monotonic
            )
        elif kind is Kind.STUN:
            self._stun(datagram, client, send, now)
        else:
            stats.drop(DropReason.NOT_OURS if datagram else DropReason.EMPTY)

    def _stun(self, message: memoryview, source: Address, send: Send, now: Now) -> None:
        if message[:2] == SEND_INDICATION:
            self._forwarder.send_indication(
                self._clients.get(key_of(source)), message, now.monotonic
            )
            return
        reply = self._decide(message, FiveTuple(UDP, source, self.address), send, now)
        if reply is not None:
            self._reply(reply, source, send)

    def _decide(self, message: Buffer, client: FiveTuple, send: Send, now: Now) -> Reply | None:
        """The reply to a message, if there is one and it may go to where that came from."""
        shared = self._shared
        try:
            reply = shared.engine.handle(message, client, send, now)
        except Malformed:
            shared.stats.drop(DropReason.MALFORMED)
            return None
        if reply is None or reply.proved:
            return reply
        if shared.may_reply(reply.data, client.client.host, now.monotonic):
            return reply
        shared.stats.drop(DropReason.REPLY_LIMIT)
        return None

    def _reply(self, reply: Reply, source: Address, send: Send) -> None:
        by = self._shared.senders.get(reply.origin) if reply.origin else send
        try:
            if by is None:
                raise OSError(errno.EADDRNOTAVAIL, "that address is not listened on")
            by(reply.data, reply.destination or source)
        except OSError:
            self._shared.stats.drop(DropReason.SEND_FAILED)


@lru_cache(maxsize=1024)  # a client asks several times in a row: 1 µs each, or 0.1
def client_of(key: bytes, server: Address) -> FiveTuple:
    """The client of a datagram, by its source (``routes.key_of``)."""
    return FiveTuple(UDP, address_of(key), server)
