"""A thousand rounds: everything is allocated, everything is given back, and nothing has changed."""

import itertools
import random

from tests.property.books import Stream, check_books, check_routes
from tests.turn.world import PEER, Client, FakeTcpRelay, World, code_of
from turn.allocation.model import Limits
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address, Family
from turn.routes import Transport

ROUNDS = 1000
LIMITS = Limits(allocations_per_user=0, allocations_per_address=0)
BOTH = (registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6)
PEER6 = Address("2606:4700::99", 4000)


def take_all(world: World, chance: random.Random) -> list[Client]:
    """Allocate, in every way there is, until nothing is left; use what is had."""
    clients = []
    while world.opener.free:
        client = world.client(transport=chance.choice(list(Transport)))
        is_tcp = client.five_tuple.transport.is_stream and chance.random() < 0.3
        if is_tcp:
            reply = client.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
        else:
            ways = (), (BOTH,), ((registry.EVEN_PORT, True),), ((registry.EVEN_PORT, False),)
            reply = client.allocate(*chance.choice(ways))
        if code_of(reply):
            assert code_of(reply) == 508
            continue
        clients.append(client)
        if token := reply.get(registry.RESERVATION_TOKEN):
            if chance.random() < 0.5:
                clients.append(world.client())
                assert code_of(clients[-1].allocate((registry.RESERVATION_TOKEN, token))) == 0
        elif is_tcp:
            client.permit(PEER)
            client.raw(client.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER)))
        else:
            client.bind(0x4000, PEER)
            client.send_indication(PEER6, b"x")
    for relay in world.opener.opened:
        if isinstance(relay, FakeTcpRelay) and not relay.closed:
            for _, done in relay.dialled:
                done(Stream(), world.monotonic)
            relay.dialled.clear()
    return clients


def free_all(world: World, chance: random.Random, clients: list[Client]) -> None:
    """Give everything back: asked for, by leaving, or by waiting."""
    for client in clients:
        if client.five_tuple.transport.is_stream and chance.random() < 0.5:
            world.engine.disconnected(client.five_tuple)
        elif chance.random() < 0.8:
            assert code_of(client.refresh((registry.LIFETIME, 0))) == 0
    world.sleep(601)


def test_a_thousand_rounds():
    world = World(LIMITS)
    world.opener.tcp = True
    chance = random.Random(8656)
    for number in itertools.count(1):
        clients = take_all(world, chance)
        check_books(world, LIMITS)
        check_routes(world)
        free_all(world, chance, clients)
        engine, table = world.engine, world.engine.table
        assert sorted(world.opener.free) == list(range(50000, 50008))
        assert (len(table), len(table._reservations), len(engine._replies)) == (0, 0, 0)
        assert len(engine._allocator.peers.connections) == 0
        assert list(world.routes.all()) == []
        assert not any(world.routes._listeners.values())
        assert len(table._due) <= 64
        world.opener.opened.clear()
        if number == ROUNDS:
            break
    assert world.stats.allocations_created.total() > 3 * ROUNDS
    assert sum(world.stats.allocations_closed.values()) >= 2 * ROUNDS
