"""What each method does: one function per method, checking in the RFC's order.

A handler returns the attributes of the success reply, or raises ``StunError``; one that returns
None answers later. It is called for requests that passed the steps common to all (``engine``).
"""

from collections.abc import Callable
from functools import partial

from turn.allocation import discovery, mobility, reservation, tcp
from turn.allocation.allocator import Allocator, CloseReason
from turn.allocation.model import DEFAULT_LIFETIME, Allocation, NoPort, Owner, Relay
from turn.allocation.policy import is_tunnelled
from turn.allocation.request import Request, allocation_of, check_family, unknown_attributes
from turn.codec import registry
from turn.codec.channel import is_channel_number
from turn.codec.errors import StunError
from turn.codec.registry import Attributes, Method
from turn.codec.values import IPV4, IPV6, AddressError, Family, family_of

UDP, TCP = 17, 6
"""IANA protocol numbers, as REQUESTED-TRANSPORT carries them (RFC 8656 §18.7, RFC 6062 §4.1)."""
PARTICULAR = frozenset(
    attribute.number
    for attribute in (
        registry.RESERVATION_TOKEN,
        registry.EVEN_PORT,
        registry.REQUESTED_ADDRESS_FAMILY,
        registry.ADDITIONAL_ADDRESS_FAMILY,
        registry.DONT_FRAGMENT,
        registry.MOBILITY_TICKET,
    )
)
"""What an Allocate may say about the address that it asks for, or about what it is to be."""


def binding(allocator: Allocator, request: Request) -> Attributes:
    """Tell the client its address (RFC 8489 §7), and how its NAT behaves (RFC 5780)."""
    mapped = (registry.XOR_MAPPED_ADDRESS, request.client.client)
    if allocator.options.discovery is None:
        return (mapped,)
    answer = allocator.options.discovery.answer(request.message, request.client)
    request.origin, request.destination = answer.origin, answer.destination
    return (mapped, *answer.attributes)


def allocate(allocator: Allocator, request: Request) -> Attributes | None:
    """Give the client a relayed transport address (RFC 8656 §7.2)."""
    message, now = request.message, request.now.monotonic
    if is_tunnelled(request.client.client.host):  # RFC 8656 §21.4
        raise StunError(403)
    existing = allocator.table.get(request.client)
    if existing is not None and existing.expires > now:
        raise StunError(437)
    if existing is not None:  # over, but not swept up yet
        allocator.close(existing, CloseReason.EXPIRED)
    transport = message.get(registry.REQUESTED_TRANSPORT)
    if transport is None:
        raise StunError(400)
    if transport != UDP and not (transport == TCP and allocator.opener.tcp):
        raise StunError(442)
    lifetime = message.get(registry.LIFETIME)  # here, for it may be malformed
    owner = request.owner
    if transport == UDP and message.lacks(PARTICULAR):  # browsers ask for an address, that is all
        family = _family(allocator, request, None)
        relay = _open(allocator, request, owner, family)
        return _begin(allocator, request, owner, [relay], lifetime)
    mobility.check_asked(request)
    if transport == TCP:
        return _begin(
            allocator, request, owner, _tcp_relay_for(allocator, request, owner), lifetime
        )
    if reservation.is_elsewhere(allocator, request):
        begin = partial(_begin_on_fetched, allocator, request, owner, lifetime)
        reservation.fetch(allocator, request, owner, begin)
        return None
    relays, extra = _relays_for(allocator, request, owner)
    return _begin(allocator, request, owner, relays, lifetime, extra)


def _begin_on_fetched(
    allocator: Allocator,
    request: Request,
    owner: Owner,
    lifetime: int | None,
    relays: list[Relay],
) -> Attributes:
    for relay in relays:
        _check_fragments(request, family_of(relay.address))
    allocator.check_still(owner, request.now.wall)
    allocator.table.check_claim(request.client)
    return _begin(allocator, request, owner, relays, lifetime)


def _begin(
    allocator: Allocator,
    request: Request,
    owner: Owner,
    relays: list[Relay],
    lifetime: int | None,
    extra: Attributes = (),
) -> Attributes:
    """Begin an allocation on these addresses, and say so.

    :param lifetime: what the client asks for.
    """
    now = request.now.monotonic
    allocation = allocator.create(request.client, owner, relays, request.send, now)
    # A client may not ask for less than the default (RFC 8656 §7.2, item "Lifetime").
    granted = _lifetime(allocator, request, allocation, lifetime)
    allocator.extend(allocation, now + granted)
    return (
        *[(registry.XOR_RELAYED_ADDRESS, relay.public) for relay in relays],
        (registry.LIFETIME, int(granted)),
        *extra,
        *mobility.begin(allocator, request, allocation),
        (registry.XOR_MAPPED_ADDRESS, request.client.client),
    )


def _lifetime(
    allocator: Allocator, request: Request, allocation: Allocation, wanted: int | None
) -> float:
    """How much longer an allocation lives: as long as what its client may use it by."""
    allocation.grant, allocation.keys = request.proved.grant, request.proved.keys
    granted = allocator.grant(max(wanted or 0, DEFAULT_LIFETIME))
    if allocation.grant is None:
        return granted
    return max(1.0, min(granted, allocation.grant.expires - request.now.wall))


def _relays_for(
    allocator: Allocator, request: Request, owner: Owner
) -> tuple[list[Relay], Attributes]:
    """What an Allocate asks to relay from, and what the reply says beside the addresses."""
    message = request.message
    token = message.get(registry.RESERVATION_TOKEN)
    even_port = message.get(registry.EVEN_PORT)
    wanted = message.get(registry.REQUESTED_ADDRESS_FAMILY)
    additional = message.get(registry.ADDITIONAL_ADDRESS_FAMILY)
    if token is not None and {even_port, wanted, additional} != {None}:
        raise StunError(400)
    if additional is not None:
        if additional != IPV6 or wanted is not None or even_port:
            raise StunError(400)
        _check_fragments(request, IPV6)
        return _open_both(allocator, request, owner)
    if token is not None:  # its share of the quota was taken when it was reserved
        _check_fragments(request, family_of(allocator.table.reserved(token, owner).address))
        allocator.table.check_claim(request.client)
        return [allocator.table.claim(token, owner)], ()
    family = _family(allocator, request, wanted)
    _check_fragments(request, family)
    if even_port:
        return _open_pair(allocator, request, owner, family)
    return [_open(allocator, request, owner, family, even=even_port is not None)], ()


def _open(
    allocator: Allocator, request: Request, owner: Owner, family: Family, *, even: bool = False
) -> Relay:
    allocator.table.check_quota(request.client, owner)
    try:
        return allocator.opener.open(family, request.client.server.host, even=even)
    except NoPort:
        raise allocator.table.exceeded("ports", 508) from None


def _open_pair(
    allocator: Allocator, request: Request, owner: Owner, family: Family
) -> tuple[list[Relay], Attributes]:
    """Two addresses on neighbouring ports, the second held for whoever shows the token."""
    allocator.table.check_quota(request.client, owner, shares=2)
    try:
        relay, held = allocator.opener.open_pair(family, request.client.server.host)
    except NoPort:
        raise allocator.table.exceeded("ports", 508) from None
    token = allocator.reserve(held, owner, request.now.monotonic)
    return [relay], ((registry.RESERVATION_TOKEN, token),)


def _family(allocator: Allocator, request: Request, wanted: int | None) -> Family:
    """The family to relay in, by its number. :raises StunError: 440.

    Who names none gets IPv4, or what an operator has in its place (``Options``).
    """
    families = allocator.opener.families
    if wanted is None:
        wanted = IPV4
        if allocator.options.family_of_client:
            here = family_of(request.client.client)
            wanted = here if here in families else next(iter(families), IPV4)
    if wanted not in families:
        raise StunError(440)
    return Family(wanted)


def _check_fragments(request: Request, family: Family) -> None:
    """See that DONT-FRAGMENT asks for nothing that we cannot do. :raises StunError: 420.

    From IPv4 to IPv6 the DF bit of each packet would have to be known, and no socket tells it
    (RFC 8656 §3.7; a server that cannot set the bit does not know the attribute, §7.2 item 4).
    """
    if family is IPV4 or not request.message.has(registry.DONT_FRAGMENT):
        return
    client = request.client
    if family_of(client.client) is IPV4 and not client.transport.is_stream:
        raise unknown_attributes((registry.DONT_FRAGMENT.number,))


def _tcp_relay_for(allocator: Allocator, request: Request, owner: Owner) -> list[Relay]:
    """A relayed address that peers connect to (RFC 6062 §5.1)."""
    message = request.message
    not_for_tcp = (
        registry.DONT_FRAGMENT,
        registry.EVEN_PORT,
        registry.RESERVATION_TOKEN,
        registry.ADDITIONAL_ADDRESS_FAMILY,
    )
    is_stream = request.client.transport.is_stream
    if not is_stream or any(message.has(each) for each in not_for_tcp):
        raise StunError(400)
    family = _family(allocator, request, message.get(registry.REQUESTED_ADDRESS_FAMILY))
    allocator.table.check_quota(request.client, owner)
    try:
        return [allocator.opener.open_tcp(family, request.client.server.host)]
    except NoPort:
        raise allocator.table.exceeded("ports", 508) from None


def _open_both(
    allocator: Allocator, request: Request, owner: Owner
) -> tuple[list[Relay], Attributes]:
    """An address of each family, or one and why not the other (RFC 8656 §7.2, item 9)."""
    allocator.table.check_quota(request.client, owner, shares=2)
    server, even = request.client.server.host, request.message.has(registry.EVEN_PORT)
    relays: list[Relay] = []
    failures: list[AddressError] = []
    for family in Family:
        try:
            if family not in allocator.opener.families:
                raise StunError(440)
            relays.append(allocator.opener.open(family, server, even=even))
        except NoPort:
            error = allocator.table.exceeded("ports", 508)
            failures.append(AddressError(family, error.code, error.reason))
        except StunError as error:
            failures.append(AddressError(family, error.code, error.reason))
    if not relays:
        raise StunError(max(failure.code for failure in failures))
    return relays, tuple((registry.ADDRESS_ERROR_CODE, failure) for failure in failures)


def refresh(allocator: Allocator, request: Request) -> Attributes | None:
    """Move the end of an allocation, or end it now (RFC 8656 §8.2)."""
    if mobility.is_elsewhere(allocator, request):
        mobility.fetch(
            allocator, request, lambda moved: _refresh(allocator, request, moved, moving=True)
        )
        return None
    moving = mobility.holder(allocator, request)
    allocation = moving or allocation_of(allocator, request)
    return _refresh(allocator, request, allocation, moving=moving is not None)


def _refresh(
    allocator: Allocator, request: Request, allocation: Allocation, *, moving: bool
) -> Attributes:
    number = request.message.get(registry.REQUESTED_ADDRESS_FAMILY)
    if number is not None and number not in allocation.relayed:
        raise StunError(443)
    family = None if number is None else Family(number)
    wanted = request.message.get(registry.LIFETIME)
    if wanted == 0:
        if family is None:
            allocator.close(allocation, CloseReason.RELEASED)
        else:
            allocator.close_family(allocation, family, CloseReason.RELEASED)
        return ((registry.LIFETIME, 0),)
    ticket = mobility.move(allocator, request, allocation) if moving else ()
    granted = _lifetime(allocator, request, allocation, wanted)
    allocator.extend(allocation, request.now.monotonic + granted, family)
    return ((registry.LIFETIME, int(granted)), *ticket)


def create_permission(allocator: Allocator, request: Request) -> Attributes:
    """Let peers send to the client: all that are named, or none (RFC 8656 §10.2)."""
    allocation = allocation_of(allocator, request)
    peers = request.message.get_all(registry.XOR_PEER_ADDRESS)
    if not peers:
        raise StunError(400)
    hosts = {peer.host for peer in peers}
    allocator.peers.check_room(allocation, hosts)  # before the judgements, which cost far more
    for peer in peers:
        check_family(allocation, peer)
        if not allocator.peers.policy.allows_host(peer.host):
            raise StunError(403)
    allocator.peers.permit(allocation, hosts, request.now.monotonic)
    return ()


def channel_bind(allocator: Allocator, request: Request) -> Attributes:
    """Give a peer a number, so that packets carry four bytes more, not 36 (RFC 8656 §12.2)."""
    allocation = allocation_of(allocator, request)
    number = request.message.get(registry.CHANNEL_NUMBER)
    peer = request.message.get(registry.XOR_PEER_ADDRESS)
    if number is None or peer is None or not is_channel_number(number) or allocation.is_tcp:
        raise StunError(400)
    check_family(allocation, peer)
    if not allocator.peers.policy.allows(peer):
        raise StunError(403)
    allocator.peers.bind(allocation, number, peer, request.now.monotonic)
    return ()


HANDLERS: dict[int, Callable[[Allocator, Request], Attributes | None]] = {
    Method.BINDING: binding,
    Method.ALLOCATE: allocate,
    Method.REFRESH: refresh,
    Method.CREATE_PERMISSION: create_permission,
    Method.CHANNEL_BIND: channel_bind,
    Method.CONNECT: tcp.connect,
    Method.CONNECTION_BIND: tcp.connection_bind,
}

KNOWN: frozenset[int] = frozenset(
    attribute.number
    for attribute in (
        registry.USERNAME,
        registry.MESSAGE_INTEGRITY,
        registry.MESSAGE_INTEGRITY_SHA256,
        registry.PASSWORD_ALGORITHM,
        registry.USERHASH,
        registry.REALM,
        registry.NONCE,
        registry.XOR_MAPPED_ADDRESS,
        registry.CHANNEL_NUMBER,
        registry.LIFETIME,
        registry.XOR_PEER_ADDRESS,
        registry.DATA,
        registry.XOR_RELAYED_ADDRESS,
        registry.DONT_FRAGMENT,
        registry.EVEN_PORT,
        registry.REQUESTED_TRANSPORT,
        registry.RESERVATION_TOKEN,
        registry.REQUESTED_ADDRESS_FAMILY,
        registry.CONNECTION_ID,
        registry.PRIORITY,
        registry.USE_CANDIDATE,
    )
)
"""The comprehension-required attributes that this server understands; others get 420."""


def known(allocator: Allocator, request: Request) -> frozenset[int]:
    """Those that it understands in this request."""
    able = allocator.options.discovery
    if able and request.message.method == Method.BINDING and able.serves(request.client):
        return KNOWN | discovery.ATTRIBUTES
    return KNOWN
