"""A relay's socket, with real packets: whom it lets in, and that nothing passes after its end."""

import asyncio
import socket
import time
from functools import partial

import pytest

from tests.patience import PATIENCE, until
from turn.codec.values import Address, Icmp
from turn.relay.forward import Forwarder
from turn.relay.poll import MOST_EVENTS, PACKETS_PER_WAKEUP, Poller
from turn.relay.sockets import RelaySocket
from turn.routes import ClientRoutes, Ends, FiveTuple, Route, Transport
from turn.stats import Stats

LATER = time.monotonic() + 3600
CLIENT = FiveTuple(Transport.UDP, Address("192.0.2.7", 40000), Address("198.51.100.1", 3478))


class Bench:
    """A relay socket between a peer's socket and a list of what the client got."""

    def __init__(self, poller, host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.stats = Stats()
        self.received: list[bytes] = []
        self.asked: list[tuple[Address, float]] = []
        self.closed: list[RelaySocket] = []
        self.errors: list[tuple[Address, Icmp]] = []
        self.answer: Route | None = None
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind((host, 0))
        self.peer = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.peer.bind((host, 0))
        ours = Address(*sock.getsockname()[:2])
        ends = ours, Address("203.0.113.7", ours.port)
        forwarder = Forwarder(self.stats, lambda *_: None)
        self.relay = RelaySocket(sock, ends, poller, forwarder, self.closed.append)
        self.routes = ClientRoutes(CLIENT)

    def route(self, expires=LATER):
        send = self.relay.send
        ends = Ends(CLIENT, self.relay.address, self._to_client, send, send, None, None)
        return Route(ends, self.peer_address, self.peer_address, 0x4000, expires)

    @property
    def peer_address(self):
        return Address(*self.peer.getsockname()[:2])

    def admit(self, source, now):
        self.asked.append((source, now))
        return self.answer

    def unreachable(self, peer, icmp, now):
        self.errors.append((peer, icmp))

    def send(self, payload):
        self.peer.sendto(payload, tuple(self.relay.address))

    def _to_client(self, data, _):
        self.received.append(bytes(data))


@pytest.fixture
async def poller():
    """A poller that never raises: the event loop would only log it and go on."""
    loop, made = asyncio.get_running_loop(), Poller()
    complaints: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    made.start(loop)
    yield made
    made.stop(loop)
    assert complaints == []


@pytest.fixture(params=["127.0.0.1", "::1"])
def bench(poller, request):
    made = Bench(poller, request.param)
    yield made
    made.peer.close()
    if not made.closed:
        made.relay.close()


async def test_a_peers_packet_takes_its_route(bench):
    bench.routes.peers[bench.peer_address] = bench.route()
    bench.relay.start(bench.routes, bench)
    for payload in (b"one", b"", b"three"):
        bench.send(payload)
    await until(lambda: len(bench.received) == 3)
    assert bench.received == [b"\x40\x00\x00\x03one", b"\x40\x00\x00\x00", b"\x40\x00\x00\x05three"]
    assert bench.asked == []


async def test_a_source_without_a_route_is_asked_about_and_dropped_on_no(bench):
    bench.relay.start(bench.routes, bench)
    bench.send(b"x")
    await until(lambda: bench.asked)
    source, now = bench.asked[0]
    assert source == bench.peer_address
    assert isinstance(source, Address)
    assert abs(now - time.monotonic()) < 5
    assert bench.received == []


async def test_a_source_that_is_admitted_is_served_at_once(bench):
    bench.answer = bench.route()
    bench.relay.start(bench.routes, bench)
    bench.send(b"x")
    await until(lambda: bench.received)
    assert bench.received == [b"\x40\x00\x00\x01x"]


async def test_two_peers_in_turns_take_their_own_routes(bench):
    with socket.socket(bench.peer.family, socket.SOCK_DGRAM) as second:
        second.bind((bench.relay.address.host, 0))
        bench.routes.peers[bench.peer_address] = bench.route()
        bench.peer, first = second, bench.peer
        bench.routes.peers[bench.peer_address] = other = bench.route()
        other.channel = 0x4001
        bench.relay.start(bench.routes, bench)
        for sock in (first, second, first):
            sock.sendto(b"", tuple(bench.relay.address))
        await until(lambda: len(bench.received) == 3)
        bench.peer = first
    assert [data[:2] for data in bench.received] == [b"\x40\x00", b"\x40\x01", b"\x40\x00"]


async def test_an_expired_route_lets_nothing_in(bench):
    bench.routes.peers[bench.peer_address] = bench.route(expires=time.monotonic())
    bench.relay.start(bench.routes, bench)
    bench.send(b"x")
    await until(lambda: bench.asked)
    assert bench.received == []


async def test_packets_to_peers_leave_from_the_relayed_address(bench):
    loop = asyncio.get_running_loop()
    bench.relay.send(b"hello", bench.peer_address)
    data, source = await asyncio.wait_for(loop.sock_recvfrom(bench.peer, 100), PATIENCE)
    assert data == b"hello"
    assert source[:2] == tuple(bench.relay.address)


async def test_the_error_of_an_earlier_packet_does_not_stop_it(bench):
    """A peer's ICMP error is raised by the next read of the socket."""
    bench.answer = bench.route()
    bench.relay.start(bench.routes, bench)
    kind = bench.peer.family
    with socket.socket(kind, socket.SOCK_DGRAM) as gone:
        gone.bind((bench.relay.address.host, 0))
        dead = Address(*gone.getsockname()[:2])
    for _ in range(3):
        bench.relay.send(b"x", dead)
    bench.send(b"after")
    await until(lambda: bench.received)
    assert bench.received == [b"\x40\x00\x00\x05after"]


async def test_closed_it_has_given_its_port_back_and_sends_nothing(bench):
    bench.relay.start(bench.routes, bench)
    bench.relay.close()
    assert bench.closed == [bench.relay]
    with pytest.raises(OSError, match="Bad file descriptor"):
        bench.relay.send(b"x", bench.peer_address)
    with socket.socket(bench.peer.family, socket.SOCK_DGRAM) as again:
        again.bind(tuple(bench.relay.address))


async def test_what_came_before_the_start_waits_for_a_permission_too(bench):
    """A reserved port: whoever sends to it early is judged when it is claimed."""
    bench.send(b"early")
    await asyncio.sleep(0)
    bench.relay.start(bench.routes, bench)
    await until(lambda: bench.asked)
    assert bench.received == []


class TestPoller:
    """The one descriptor through which the event loop hears of all relay sockets."""

    @staticmethod
    def pair():
        one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.setblocking(False)
        return one, two

    async def test_a_flood_leaves_the_event_loop_its_turn(self, poller):
        """Also where a reader finds nothing: a socket that is ready for ever must not spin."""
        for found in (1, 0):
            one, two = self.pair()
            reads = 0

            def read(_descriptor, _now, found=found):
                nonlocal reads
                reads += 1
                assert reads < 10 * PACKETS_PER_WAKEUP, "the event loop never gets its turn"
                return found

            two.send(b"never read, so it is always ready")
            poller.add(one, read)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            poller.remove(one)
            assert PACKETS_PER_WAKEUP <= reads <= 3 * PACKETS_PER_WAKEUP
            one.close()
            two.close()

    async def test_more_sockets_than_one_look_names_are_all_served(self, poller):
        pairs = [self.pair() for _ in range(2 * MOST_EVENTS)]
        heard: set[int] = set()

        def read(one, number, _descriptor, _now):
            heard.add(number)
            return len(one.recv(9))

        for number, (one, two) in enumerate(pairs):
            two.send(b"x")
            poller.add(one, partial(read, one, number))
        await until(lambda: len(heard) == len(pairs))
        for one, two in pairs:
            poller.remove(one)
            one.close()
            two.close()

    async def test_a_reader_may_close_the_socket_whose_turn_is_next(self, poller):
        pairs = [self.pair() for _ in range(2)]
        heard: list[int] = []

        def read(number, _descriptor, _now):
            heard.append(number)
            for one, _ in pairs:
                poller.remove(one)
            return 1

        for number, (one, two) in enumerate(pairs):
            two.send(b"x")
            poller.add(one, partial(read, number))
        await until(lambda: heard)
        await asyncio.sleep(0.05)
        assert len(heard) == 1
        for one, two in pairs:
            one.close()
            two.close()
