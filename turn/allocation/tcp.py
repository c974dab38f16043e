"""The methods of TCP allocations (RFC 6062 §5): Connect and ConnectionBind."""

from functools import partial
from typing import cast

from turn.allocation.allocator import Allocator
from turn.allocation.connections import Claimant, Connection, PeerStream
from turn.allocation.model import TcpRelay
from turn.allocation.request import Request, Waiting, allocation_of, check_family
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.registry import Attributes


def connect(allocator: Allocator, request: Request) -> None:
    """Connect to a peer; the reply follows when that has come to an end (RFC 6062 §5.2)."""
    allocation = allocation_of(allocator, request)
    peer = request.message.get(registry.XOR_PEER_ADDRESS)
    relay = next(iter(allocation.relayed.values())).relay
    if peer is None or not relay.is_tcp:
        raise StunError(400)
    check_family(allocation, peer)
    if not allocator.peers.policy.allows_connection(peer):
        raise StunError(403)
    if peer in allocator.peers.connections.of(allocation):
        raise StunError(446)
    connection = allocator.peers.begin_connection(allocation, peer)

    def done(stream: PeerStream | None, now: float) -> None:
        _connected(allocator, request, connection, stream, now)

    cast("TcpRelay", relay).connect(allocator.peers.policy.to_wire(peer), done)


def _connected(
    allocator: Allocator,
    request: Request,
    connection: Connection,
    stream: PeerStream | None,
    now: float,
) -> None:
    if stream is None:
        allocator.peers.connections.drop(connection)
        request.answer(StunError(447))
        return
    allocator.peers.connections.open(connection, stream, now)
    request.answer(((registry.CONNECTION_ID, connection.number),))


def connection_bind(allocator: Allocator, request: Request) -> Attributes | None:
    """Make the client's connection the other half of one with a peer (RFC 6062 §5.4).

    The client's new connection may have come to another worker than its first one: then the peer's
    is lent to where the client is.
    """
    number = request.message.get(registry.CONNECTION_ID)
    is_stream = request.client.transport.is_stream
    if number is None or not is_stream or allocator.table.get(request.client) is not None:
        raise StunError(400)
    claimant = Claimant(request.owner, request.client.client.host)
    if allocator.elsewhere.holds_connection(number):
        allocator.elsewhere.borrow_connection(number, claimant, partial(_lent, request))
        request.waiting = request.waiting or Waiting()
        return None
    request.stream = allocator.peers.connections.claim(number, claimant)
    return ()


def _lent(request: Request, found: PeerStream | int) -> None:
    if isinstance(found, int):
        request.answer(StunError(found))
        return
    request.stream = found
    request.answer(())
