"""Clients of some networks are kept out, whatever credentials they have."""

from ipaddress import ip_network

import pytest

from tests.turn.live import UDP, Client, port_of, relay, settings
from tests.turn.world import PEER, FakeStream, FakeTcpRelay, World, code_of
from turn.allocation.clients import WHY, Clients
from turn.allocation.connections import Claimant
from turn.allocation.model import Limits, Owner
from turn.allocation.options import Options
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.routes import Transport

ASKED = (registry.MOBILITY_TICKET, b"")
ROOM = Limits(allocations_per_user=0)


def clients(allow: str = "", deny: str = "") -> Clients:
    return Clients(*(tuple(map(ip_network, text.split())) for text in (allow, deny)))


@pytest.mark.parametrize(
    ("rules", "host", "admitted"),
    [
        (clients(), "192.0.2.7", True),
        (clients(deny="192.0.2.0/24"), "192.0.2.7", False),
        (clients(deny="192.0.2.0/24"), "192.0.3.7", True),
        (clients(deny="192.0.2.0/24"), "2001:db8::7", True),
        (clients(allow="192.0.2.0/24 2001:db8::/32"), "2001:db8::7", True),
        (clients(allow="192.0.2.0/24"), "2001:db8::7", False),
        (clients(allow="192.0.2.0/24", deny="192.0.2.7/32"), "192.0.2.7", False),
        (clients(allow="192.0.2.0/24", deny="192.0.2.7/32"), "192.0.2.8", True),
        (clients(deny="0.0.0.0/0 ::/0"), "2001:db8::7", False),
    ],
)
def test_which_hosts(rules: Clients, host: str, admitted: bool) -> None:
    assert rules.admits(host) is admitted


@pytest.mark.parametrize("transport", list(Transport))
def test_who_is_kept_out_begins_nothing(transport: Transport) -> None:
    world = World(options=Options(clients=clients(deny="192.0.2.0/24")))
    client = world.client(host="192.0.2.7", transport=transport)
    assert code_of(client.allocate()) == 403
    assert code_of(world.client(host="192.0.3.7", transport=transport).allocate()) == 0
    assert code_of(client.once(Method.BINDING)) == 0, "its address it may know"


def test_a_stranger_does_not_learn_it() -> None:
    world = World(options=Options(clients=clients(deny="192.0.2.0/24")))
    assert code_of(world.client(password="wrong", host="192.0.2.7").allocate()) == 401


def test_an_operator_is_told_why() -> None:
    told: list[object] = []
    world = World(options=Options(clients=clients(deny="192.0.2.0/24")))
    world.engine._tell = lambda kind, facts: told.append(facts()["why"])  # type: ignore[operator]
    world.client(host="192.0.2.7").allocate()
    assert told == [WHY]


def test_a_ticket_is_no_way_in() -> None:
    rules = clients(deny="203.0.113.0/24")
    world = World(options=Options(mobility=True, clients=rules))
    before = world.client(host="192.0.2.7")
    ticket = (registry.MOBILITY_TICKET, before.allocate(ASKED).get(registry.MOBILITY_TICKET))
    away = world.client(host="203.0.113.9")
    assert code_of(away.request(Method.REFRESH, ticket)) == 403
    assert code_of(before.refresh()) == 0, "it has not moved"


def test_what_they_have_ends_when_they_are_kept_out() -> None:
    world = World(ROOM)
    out, stays = world.client(host="192.0.2.7"), world.client(host="192.0.3.7")
    for client in (out, stays):
        client.allocate()
        client.bind(0x4000, PEER)
    relay = out.relay
    rules = clients(deny="192.0.2.0/24")
    world.engine.reload(world.engine._authenticator, ROOM, Options(clients=rules))
    assert relay.closed
    assert world.stats.allocations_closed == {"operator": 1}
    assert code_of(out.refresh()) == 403
    assert code_of(stays.refresh()) == 0
    world.engine.reload(world.engine._authenticator, ROOM, Options())
    assert code_of(out.allocate()) == 0


def test_a_connection_with_a_peer_ends_by_the_address_that_claimed_it() -> None:
    """RFC 6062: the client's second connection may come from elsewhere than its first."""
    world = World(ROOM)
    world.opener.tcp = True
    control = world.client(host="192.0.3.7", transport=Transport.TCP)
    control.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
    streams = []
    for port, host in ((1, "192.0.2.7"), (2, "192.0.3.7"), (3, "")):
        peer = Address(PEER.host, port)
        control.raw(control.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, peer)))
        relay = control.relay
        assert isinstance(relay, FakeTcpRelay)
        (_, done) = relay.dialled.pop()
        streams.append(FakeStream())
        done(streams[-1], world.monotonic)
        number = parse_untrusted(control.received.pop()).get(registry.CONNECTION_ID)
        if host:  # the third one waits to be claimed
            data = world.client(host=host, transport=Transport.TCP)
            bound = data.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))
            assert code_of(bound) == 0
    rules = clients(deny="192.0.2.0/24")
    world.engine.reload(world.engine._authenticator, ROOM, Options(clients=rules))
    assert [stream.aborted for stream in streams] == [True, False, False]
    assert code_of(control.refresh()) == 0


def test_one_that_is_kept_out_borrows_nothing() -> None:
    """It may have asked a worker that has not heard of it yet."""
    world = World(ROOM, options=Options(clients=clients(deny="192.0.2.0/24")))
    claimant = Claimant(Owner("alice", "alice"), "192.0.2.7")
    with pytest.raises(StunError, match="403"):
        world.engine.lend(1, claimant, FakeStream())


async def test_a_reload_keeps_out_and_lets_in_again(connect) -> None:
    """By the address that a proxy names, where there is one; here by the socket's own."""
    async with relay() as service:
        client: Client = await connect(port_of(service))
        await client.allocate()
        for changes, code in (
            ({"deny_clients": ["127.0.0.0/8"]}, 403),
            ({"allow_clients": ["10.0.0.0/8"]}, 403),
            ({"allow_clients": ["127.0.0.0/8"]}, 0),
            ({"allow_clients": ["127.0.0.0/8"], "deny_clients": ["127.0.0.1/32"]}, 403),
            ({}, 0),
        ):
            service.reload(settings(**changes))
            reply = await client.request(Method.ALLOCATE, UDP)
            assert (reply.get(registry.ERROR_CODE) or (0,))[0] == code
            if code == 0:
                await client.request(Method.REFRESH, (registry.LIFETIME, 0))
            assert service.ports_in_use == 0
