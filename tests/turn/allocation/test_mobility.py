"""A client that changes its network keeps its allocation, and nobody else gets it (RFC 8016)."""

import pytest

from tests.turn.world import OTHER_PEER, PEER, Client, World, code_of
from turn.allocation.allocator import LINGER
from turn.allocation.model import Limits
from turn.allocation.options import Options
from turn.bandwidth import Rates
from turn.codec import registry
from turn.codec.message import Message
from turn.codec.registry import Method
from turn.routes import Carried, Route, Transport
from turn.stats import DropReason

ASKED = (registry.MOBILITY_TICKET, b"")


class Watcher:
    """An observer of the routes that keeps where their clients are."""

    def __init__(self) -> None:
        self.live: dict[int, str] = {}

    def added(self, route: Route) -> None:
        self.live[id(route)] = route.client.client.host

    def refreshed(self, route: Route) -> None:
        assert id(route) in self.live

    def carried_by(self, _: Route) -> Carried:
        return Carried()

    def removed(self, route: Route) -> None:
        del self.live[id(route)]


@pytest.fixture
def world() -> World:
    return World(options=Options(mobility=True))


def allocated(world: World, host: str = "192.0.2.7") -> tuple[Client, bytes]:
    """A client with an allocation, and its ticket."""
    client = world.client(host=host)
    ticket = client.allocate(ASKED).get(registry.MOBILITY_TICKET)
    assert ticket is not None
    return client, ticket


def come(
    world: World, ticket: bytes, *attributes: object, username: str = "alice", password: str = "pw"
) -> tuple[Client, Message]:
    """A client at another address shows a ticket."""
    client = world.client(username, password, host="203.0.113.9")
    shown = (registry.MOBILITY_TICKET, ticket)
    return client, client.request(Method.REFRESH, shown, *attributes)


def test_everything_moves_and_goes_on(world: World) -> None:
    before, ticket = allocated(world)
    before.bind(0x4000, PEER)
    before.permit(OTHER_PEER)
    relay = before.relay
    watcher = Watcher()
    world.routes.observe(watcher)
    for route in world.routes.all():
        watcher.added(route)

    after, reply = come(world, ticket)

    assert code_of(reply) == 0
    assert reply.get(registry.LIFETIME) == 600
    assert after.relay is relay
    assert world.engine.table.get(before.five_tuple) is None
    after.channel_data(0x4000, b"by channel")
    after.send_indication(OTHER_PEER, b"by indication")
    assert relay.sent == [(b"by channel", PEER), (b"by indication", OTHER_PEER)]
    relay.receive(b"back", PEER)
    relay.receive(b"back too", OTHER_PEER)
    assert after.received[0] == b"\x40\x00\x00\x04back"
    assert b"back too" in after.received[1]
    assert before.received == []
    assert set(watcher.live.values()) == {"203.0.113.9"}


def test_a_ticket_is_text_so_that_c_clients_keep_all_of_it(world: World) -> None:
    _, ticket = allocated(world)
    assert ticket.isalnum()
    assert len(ticket) == 32


def test_what_is_on_its_way_from_the_old_place_goes_through(world: World) -> None:
    """The client sends from there until it hears that it has moved (RFC 8016 §3.2.2)."""
    before, ticket = allocated(world)
    before.bind(0x4000, PEER)
    before.permit(OTHER_PEER)
    relay = before.relay
    after, _ = come(world, ticket)
    before.channel_data(0x4000, b"on its way")
    before.send_indication(OTHER_PEER, b"as well")
    assert relay.sent == [(b"on its way", PEER), (b"as well", OTHER_PEER)]
    relay.receive(b"back", PEER)
    assert before.received == []
    assert len(after.received) == 1
    world.sleep(LINGER + 1)
    before.channel_data(0x4000, b"late")
    before.send_indication(OTHER_PEER, b"late")
    assert len(relay.sent) == 2
    assert world.stats.drops == {DropReason.NO_ALLOCATION: 2}
    after.channel_data(0x4000, b"here I am")
    assert relay.sent[2:] == [(b"here I am", PEER)]


def test_the_old_place_has_nothing_any_more(world: World) -> None:
    before, ticket = allocated(world)
    before.bind(0x4000, PEER)
    relay = before.relay
    come(world, ticket)
    assert code_of(before.refresh()) == 437
    assert code_of(before.allocate()) == 0, "its five-tuple is free"
    before.channel_data(0x4000, b"a channel of the allocation that it had")
    assert relay.sent == []
    before.bind(0x4000, OTHER_PEER)
    world.sleep(LINGER + 1)
    before.channel_data(0x4000, b"of the new one")
    assert before.relay.sent == [(b"of the new one", OTHER_PEER)]


def test_who_comes_back_at_once_stays(world: World) -> None:
    first, ticket = allocated(world)
    first.bind(0x4000, PEER)
    relay = first.relay
    away, reply = come(world, ticket)
    back = (registry.MOBILITY_TICKET, reply.get(registry.MOBILITY_TICKET))
    assert code_of(first.refresh(back)) == 0
    world.sleep(LINGER + 1)
    first.channel_data(0x4000, b"here again")
    away.channel_data(0x4000, b"late")
    assert relay.sent == [(b"here again", PEER)]


@pytest.mark.parametrize("has_moved", [False, True])
def test_a_connection_that_is_gone_lets_nobody_in_who_comes_from_there_next(
    world: World, has_moved: bool
) -> None:
    """Its port may be another's behind the same NAT, who has proved nothing."""
    before = world.client(transport=Transport.TCP)
    ticket = before.allocate(ASKED).get(registry.MOBILITY_TICKET)
    assert ticket is not None
    before.bind(0x4000, PEER)
    relay = before.relay
    if has_moved:
        come(world, ticket)
    world.engine.disconnected(before.five_tuple)
    if not has_moved:
        come(world, ticket)
    before.channel_data(0x4000, b"somebody else's")
    assert relay.sent == []
    assert world.stats.drops == {DropReason.NO_ALLOCATION: 1}


def test_a_ticket_is_good_once_and_the_next_one_moves_on(world: World) -> None:
    _, first = allocated(world)
    after, reply = come(world, first)
    second = reply.get(registry.MOBILITY_TICKET)
    assert second is not None
    assert second != first
    assert code_of(come(world, first)[1]) == 400
    last, reply = come(world, second)
    assert code_of(reply) == 0
    assert world.engine.table.get(after.five_tuple) is None
    assert last.relay is not None


def test_a_retransmitted_move_is_answered_alike(world: World) -> None:
    _, ticket = allocated(world)
    after = world.client(host="203.0.113.9")
    after.refresh()  # learns a nonce
    message = after.encode(Method.REFRESH, (registry.MOBILITY_TICKET, ticket))
    first = world.engine.handle(message, after.five_tuple, after.send, world.now)
    second = world.engine.handle(message, after.five_tuple, after.send, world.now)
    assert first is not None
    assert first == second


def test_a_ticket_is_its_owners_alone(world: World) -> None:
    before, ticket = allocated(world)
    _, reply = come(world, ticket, username="bob", password="pw2")
    assert code_of(reply) == 441
    assert reply.get(registry.MOBILITY_TICKET) is None
    assert code_of(before.refresh()) == 0, "it has not moved"


@pytest.mark.parametrize("ticket", [b"", b"x", bytes(24), b"\xff" * 500])
def test_a_ticket_of_nobodys_is_refused(world: World, ticket: bytes) -> None:
    before, _ = allocated(world)
    _, reply = come(world, ticket)
    assert code_of(reply) == 400
    assert code_of(before.refresh()) == 0


def test_it_is_refused_where_it_does_not_move(world: World) -> None:
    client, ticket = allocated(world)
    assert code_of(client.refresh((registry.MOBILITY_TICKET, ticket))) == 400


def test_it_is_refused_where_there_is_another_allocation(world: World) -> None:
    _, ticket = allocated(world)
    other, _ = allocated(world, host="203.0.113.9")
    assert code_of(other.refresh((registry.MOBILITY_TICKET, ticket))) == 437


def test_an_allocate_brings_no_ticket(world: World) -> None:
    _, ticket = allocated(world)
    client = world.client()
    assert code_of(client.allocate((registry.MOBILITY_TICKET, ticket))) == 400


def test_who_asks_for_none_gets_none(world: World) -> None:
    client = world.client()
    assert client.allocate().get(registry.MOBILITY_TICKET) is None
    assert client.refresh().get(registry.MOBILITY_TICKET) is None


def test_where_it_is_off_none_is_given_and_none_is_good() -> None:
    world = World()
    client = world.client()
    reply = client.allocate(ASKED)
    assert code_of(reply) == 0, "a client that could move has its call all the same"
    assert reply.get(registry.MOBILITY_TICKET) is None
    assert code_of(come(world, b"ticket")[1]) == 405
    assert code_of(client.refresh(ASKED)) == 0


def test_who_has_a_ticket_when_it_is_switched_off_begins_anew(world: World) -> None:
    before, ticket = allocated(world)
    world.engine.reload(world.engine._authenticator, Limits(), Options())
    after, reply = come(world, ticket)
    assert code_of(reply) == 405
    assert code_of(after.allocate()) == 0
    assert code_of(before.refresh()) == 0, "it has not moved"


def test_an_expired_allocation_does_not_move(world: World) -> None:
    _, ticket = allocated(world)
    world.monotonic += 601  # not swept up yet
    _, reply = come(world, ticket)
    assert code_of(reply) == 437
    world.sleep(1)
    assert code_of(come(world, ticket)[1]) == 400


def test_a_refresh_with_lifetime_0_ends_it_from_elsewhere(world: World) -> None:
    before, ticket = allocated(world)
    relay = before.relay
    _, reply = come(world, ticket, (registry.LIFETIME, 0))
    assert code_of(reply) == 0
    assert relay.closed
    assert len(world.engine.table) == 0


def test_the_share_of_an_address_moves_along() -> None:
    world = World(
        limits=Limits(allocations_per_user=0, allocations_per_address=1),
        options=Options(mobility=True),
    )
    before, ticket = allocated(world)
    crowd = world.client("bob", "pw2", host="203.0.113.9")
    assert code_of(crowd.allocate()) == 0
    assert code_of(come(world, ticket)[1]) == 486
    assert code_of(before.refresh()) == 0, "it stays where it was"
    crowd.refresh((registry.LIFETIME, 0))
    assert code_of(come(world, ticket)[1]) == 0
    assert code_of(world.client("bob", "pw2", host="203.0.113.9").allocate()) == 486
    assert code_of(world.client("bob", "pw2", host="192.0.2.7").allocate()) == 0


def test_a_connection_may_be_lost_before_the_client_comes_back(world: World) -> None:
    before = world.client(transport=Transport.TCP)
    ticket = before.allocate(ASKED).get(registry.MOBILITY_TICKET)
    assert ticket is not None
    relay = before.relay
    world.engine.disconnected(before.five_tuple)
    assert not relay.closed
    after, reply = come(world, ticket)
    assert code_of(reply) == 0
    assert after.relay is relay


def test_what_nobody_comes_back_for_expires(world: World) -> None:
    before = world.client(transport=Transport.TCP)
    before.allocate(ASKED)
    relay = before.relay
    world.engine.disconnected(before.five_tuple)
    world.sleep(601)
    assert relay.closed
    assert len(world.engine.table) == 0


def test_the_new_address_bounds_what_passes() -> None:
    """Else a client with two addresses has the rate of one as often as it likes."""
    rates = Rates(address=1000)
    world = World(limits=Limits(rates=rates), options=Options(mobility=True))
    there = "203.0.113.9"
    stays, moves = world.client(host=there), world.client()
    stays.allocate()
    ticket = moves.allocate(ASKED).get(registry.MOBILITY_TICKET)
    for client in (stays, moves):
        client.permit(PEER)
    stays.send_indication(PEER, bytes(600))
    moves.send_indication(PEER, bytes(100))
    relay, after = moves.relay, world.client(host=there)
    assert code_of(after.request(Method.REFRESH, (registry.MOBILITY_TICKET, ticket))) == 0
    after.send_indication(PEER, bytes(600))
    after.send_indication(PEER, bytes(300))
    assert [len(data) for data, _ in relay.sent] == [100, 300]
    assert world.stats.drops == {DropReason.ADDRESS_BANDWIDTH: 1}
