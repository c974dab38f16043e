"""What goes through an allocation, and what ends with its connection."""

from tests.turn.world import PEER, SERVER, World, code_of
from turn.allocation.model import Limits
from turn.bandwidth import Rates
from turn.codec import registry
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Icmp
from turn.routes import Transport
from turn.stats import DropReason


class TestSendIndication:
    def test_without_a_permission_it_goes_nowhere(self, world):
        client = world.client()
        client.allocate()
        client.send_indication(PEER, b"x")
        assert client.relay.sent == []
        assert world.stats.drops[DropReason.NO_PERMISSION] == 1

    def test_without_an_allocation_it_goes_nowhere(self, world):
        world.client().send_indication(PEER, b"x")
        assert world.stats.drops[DropReason.NO_ALLOCATION] == 1

    def test_it_does_not_refresh_the_permission(self, world):
        client = world.client()
        client.allocate()
        client.permit(PEER)
        for _ in range(4):
            world.sleep(80)
            client.send_indication(PEER, b"x")
        assert len(client.relay.sent) == 3

    def test_a_permission_of_an_own_address_opens_live_relay_ports_only(self, world):
        one, two = world.client(), world.client()
        one.allocate()
        two.allocate()
        one.permit(SERVER)
        one.send_indication(two.relay.address, b"hello")
        one.send_indication(SERVER, b"no")
        assert one.relay.sent == [(b"hello", two.relay.address)]
        assert world.stats.drops[DropReason.REFUSED_PEER] == 1
        assert code_of(one.bind(0x4000, SERVER)) == 403

    def test_a_released_relay_port_is_no_peer_any_more(self, world):
        one, two = world.client(), world.client()
        one.allocate()
        two.allocate()
        target = two.relay.address
        one.bind(0x4000, target)
        two.refresh((registry.LIFETIME, 0))
        one.channel_data(0x4000, b"x")
        one.send_indication(target, b"x")
        assert one.relay.sent == []

    def test_peers_beyond_the_number_of_routes_are_served_all_the_same(self, world):
        client = world.client()
        client.allocate()
        client.permit(PEER)
        for port in range(1, 400):
            client.send_indication(Address(PEER.host, port), b"x")
        assert len(client.relay.sent) == 399
        assert len(client.routes.peers) == 128
        assert world.routes.in_user_space().sent_packets == 399


class TestConnections:
    def test_a_tcp_client_that_goes_takes_its_allocation_with_it(self, world):
        client = world.client(transport=Transport.TCP)
        client.allocate()
        relay = client.relay
        world.engine.disconnected(client.five_tuple)
        assert relay.closed
        assert world.stats.allocations_closed["disconnected"] == 1

    def test_the_same_addresses_over_tcp_and_udp_are_two_five_tuples(self, world):
        client = world.client()
        client.allocate()
        other = world.client(transport=Transport.TCP)
        other.five_tuple = client.five_tuple._replace(transport=Transport.TCP)
        assert code_of(other.allocate()) == 0
        assert len(world.engine.table) == 2

    def test_closing_all_leaves_no_port_open(self, world):
        for _ in range(3):
            world.client().allocate((registry.EVEN_PORT, True))
        world.engine.close_all()
        assert len(world.opener.free) == 8
        assert list(world.routes.all()) == []


def test_the_byte_limit_drops_what_is_over_it_each_way():
    world = World(Limits(rates=Rates(1000)))
    client = world.client()
    client.allocate()
    client.bind(0x4000, PEER)
    for _ in range(15):
        client.channel_data(0x4000, bytes(100))
        client.relay.receive(bytes(100), PEER)
    assert len(client.relay.sent) == len(client.received) == 10
    assert world.stats.drops[DropReason.BANDWIDTH] == 10
    world.monotonic += 0.5
    for _ in range(15):
        client.channel_data(0x4000, bytes(100))
    assert len(client.relay.sent) == 15


def test_dont_fragment_is_honoured(world):
    client = world.client()
    assert code_of(client.allocate((registry.DONT_FRAGMENT, True))) == 0
    client.permit(PEER)
    for flags in ((), ((registry.DONT_FRAGMENT, True),)):
        data = build(
            Method.SEND, MessageClass.INDICATION, bytes(12),
            ((registry.XOR_PEER_ADDRESS, PEER), (registry.DATA, b"x"), *flags),
        )  # fmt: skip
        world.forwarder.send_indication(client.routes, memoryview(data), world.monotonic)
    assert len(client.relay.sent) == 2
    assert client.relay.unfragmented == [b"x"]


def test_icmp_errors_of_strangers_are_not_told(world):
    client = world.client()
    client.allocate()
    client.relay.gate.unreachable(PEER, Icmp(3, 3, 0), world.monotonic)
    assert client.received == []
    client.permit(PEER)
    client.relay.gate.unreachable(PEER, Icmp(3, 4, 1400), world.monotonic)
    (told,) = (parse_untrusted(data) for data in client.received)
    assert told.get(registry.ICMP) == Icmp(3, 4, 1400)
    assert told.get(registry.XOR_PEER_ADDRESS) == PEER
