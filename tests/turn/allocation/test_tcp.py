"""TCP allocations, message by message (RFC 6062 §5)."""

import gc
import weakref

import pytest

from tests.turn.world import PEER, FakeStream, World, code_of
from turn.allocation.model import Limits
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family
from turn.routes import Transport

TCP = (registry.REQUESTED_TRANSPORT, 6)


@pytest.fixture
def world():
    made = World()
    made.opener.tcp = True
    return made


@pytest.fixture
def client(world):
    made = world.client(transport=Transport.TCP)
    assert code_of(made.request(Method.ALLOCATE, TCP)) == 0
    return made


def connect(client, peer=PEER):
    """Ask to connect; gives what the relayed address is to call. The reply comes later."""
    data = client.encode(Method.CONNECT, (registry.XOR_PEER_ADDRESS, peer))
    assert client.raw(data) is None
    (wanted, done) = client.relay.dialled.pop()
    assert wanted == peer
    return done


def told(client):
    return parse_untrusted(client.received.pop())


def connected(client, world):
    stream = FakeStream()
    connect(client)(stream, world.monotonic)
    return stream, told(client).get(registry.CONNECTION_ID)


def bind(world, number, username="alice", password="pw"):
    other = world.client(username, password, transport=Transport.TCP)
    return other, other.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))


def test_it_is_off_unless_asked_for():
    world = World()
    assert code_of(world.client(transport=Transport.TCP).request(Method.ALLOCATE, TCP)) == 442


@pytest.mark.parametrize(
    "attribute",
    [(registry.EVEN_PORT, False), (registry.DONT_FRAGMENT, True),
     (registry.RESERVATION_TOKEN, bytes(8)), (registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6)],
)  # fmt: skip
def test_what_is_for_packets_gets_400(world, attribute):
    client = world.client(transport=Transport.TCP)
    assert code_of(client.request(Method.ALLOCATE, TCP, attribute)) == 400


def test_over_udp_it_gets_400(world):
    assert code_of(world.client().request(Method.ALLOCATE, TCP)) == 400


def test_a_connection_is_made_claimed_and_ended(world, client):
    stream, number = connected(client, world)
    assert number
    _other, reply = bind(world, number)
    assert code_of(reply) == 0
    stream.on_end()
    assert len(world.engine._allocator.peers.connections) == 0
    assert code_of(bind(world, number)[1]) == 400


def test_the_reply_hands_over_the_stream(world, client):
    stream, number = connected(client, world)
    other = world.client(transport=Transport.TCP)
    other.nonce = client.nonce
    data = other.encode(Method.CONNECTION_BIND, (registry.CONNECTION_ID, number))
    reply = world.engine.handle(data, other.five_tuple, other.send, world.now)
    assert reply.stream is stream


def test_a_peer_that_cannot_be_reached_gets_447(world, client):
    connect(client)(None, world.monotonic)
    assert code_of(told(client)) == 447
    connect(client)  # and may be tried again


def test_a_second_connection_to_the_same_peer_gets_446(world, client):
    done = connect(client)
    again = client.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER))
    assert code_of(again) == 446
    done(FakeStream(), world.monotonic)
    again = client.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER))
    assert code_of(again) == 446


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "198.51.100.1"])
def test_the_policy_stands_before_this_door_too(client, host):
    reply = client.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, Address(host, 80)))
    assert code_of(reply) == 403
    assert client.relay.dialled == []


def test_what_is_lacking_or_does_not_fit(world, client):
    assert code_of(client.request(Method.CONNECT)) == 400
    six = Address("2606:4700::9", 80)
    assert code_of(client.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, six))) == 443
    assert code_of(client.bind(0x4000, PEER)) == 400
    for number in (0, 1, 0xFFFFFFFF):
        assert code_of(bind(world, number)[1]) == 400
    udp = world.client()
    udp.allocate()
    assert code_of(udp.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, PEER))) == 400
    assert code_of(udp.request(Method.CONNECTION_BIND, (registry.CONNECTION_ID, 1))) == 400


def test_another_user_cannot_claim_it(world, client):
    _, number = connected(client, world)
    assert code_of(bind(world, number, "bob", "pw2")[1]) == 441
    assert code_of(bind(world, number)[1]) == 0


def test_nobody_claims_it_twice(world, client):
    _, number = connected(client, world)
    assert code_of(bind(world, number)[1]) == 0
    assert code_of(bind(world, number)[1]) == 400


def test_what_nobody_claims_ends_after_half_a_minute(world, client):
    stream, number = connected(client, world)
    world.sleep(31)
    assert stream.aborted
    assert code_of(bind(world, number)[1]) == 400


def test_what_is_claimed_goes_on(world, client):
    stream, number = connected(client, world)
    bind(world, number)
    world.sleep(300)
    assert not stream.aborted


def test_a_peer_may_connect_with_permission_only(world, client):
    stranger, friend = FakeStream(), FakeStream()
    assert not client.relay.gate.connected(PEER, stranger, world.monotonic)
    client.permit(PEER)
    client.received.clear()
    assert client.relay.gate.connected(PEER, friend, world.monotonic)
    attempt = told(client)
    assert (attempt.method, attempt.message_class) == (
        Method.CONNECTION_ATTEMPT, MessageClass.INDICATION,
    )  # fmt: skip
    assert attempt.get(registry.XOR_PEER_ADDRESS) == PEER
    assert code_of(bind(world, attempt.get(registry.CONNECTION_ID))[1]) == 0


def test_the_end_of_the_allocation_ends_every_connection(world, client):
    one, number = connected(client, world)
    bind(world, number)
    client.permit(PEER)
    other_peer = Address(PEER.host, 9)
    two = FakeStream()
    client.relay.gate.connected(other_peer, two, world.monotonic)
    client.refresh((registry.LIFETIME, 0))
    assert one.aborted
    assert two.aborted
    assert len(world.engine._allocator.peers.connections) == 0


def test_what_is_over_waits_for_no_garbage_collector(world, client):
    stream, number = connected(client, world)
    bind(world, number)
    left = weakref.ref(stream)
    gc.disable()
    try:
        stream.on_end()
        del stream
        assert left() is None
    finally:
        gc.enable()


def test_there_is_a_bound():
    world = World(Limits(channels=2))
    world.opener.tcp = True
    client = world.client(transport=Transport.TCP)
    client.request(Method.ALLOCATE, TCP)
    for port in (1, 2):
        connect(client, Address(PEER.host, port))
    reply = client.request(Method.CONNECT, (registry.XOR_PEER_ADDRESS, Address(PEER.host, 3)))
    assert code_of(reply) == 508
    client.permit(PEER)
    assert not client.relay.gate.connected(Address(PEER.host, 4), FakeStream(), world.monotonic)


def test_no_packet_passes(world, client):
    client.permit(PEER)
    client.send_indication(PEER, b"x")
    assert client.relay.sent == []


def test_a_udp_relay_is_no_door_to_what_listens_there_for_tcp(world, client):
    """Our own ports are open to those who relay there, each for its protocol."""
    udp = world.client()
    udp.allocate()
    peer = (registry.XOR_PEER_ADDRESS, udp.relay.address)
    assert code_of(client.request(Method.CONNECT, peer)) == 403
    other = world.client(transport=Transport.TCP)
    other.request(Method.ALLOCATE, TCP)
    connect(client, other.relay.address)
    assert code_of(udp.bind(0x4000, other.relay.address)) == 403
