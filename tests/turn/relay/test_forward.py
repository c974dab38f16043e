"""The packet path alone: what each function sends, counts and drops, byte for byte."""

import errno

import pytest

from turn.bandwidth import Budgets, ByteBudget
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address
from turn.relay.forward import HEADROOM, Forwarder
from turn.routes import NOTHING, ClientRoutes, Ends, FiveTuple, Route, Transport
from turn.stats import DropReason, Stats

NOW = 1000.0
CLIENT = FiveTuple(Transport.UDP, Address("192.0.2.7", 40000), Address("198.51.100.1", 3478))
PEER = Address("8.8.8.8", 4000)
PEER_IPV6 = Address("2606:4700::1", 4000)
BEHIND_NAT = Address("10.0.0.5", 4000)


class Wire:
    """What left in each direction, and the error that the kernel answers with."""

    def __init__(self):
        self.to_client, self.to_peer, self.error = [], [], None

    def client(self, data, address):
        self._send(self.to_client, data, address)

    def peer(self, data, address):
        self._send(self.to_peer, data, address)

    def _send(self, sent, data, address):
        if self.error is not None:
            raise self.error
        sent.append((bytes(data), address))


class Path:
    """A forwarder, and routes that a test puts up."""

    def __init__(self):
        self.stats = Stats()
        self.wire = Wire()
        self.asked = []
        self.answer = None
        self.forwarder = Forwarder(self.stats, self._route_to)
        self.routes = ClientRoutes(CLIENT)

    def _route_to(self, client, peer, now):
        self.asked.append((client, peer, now))
        return self.answer

    def route(self, peer=PEER, *, channel=0, expires=NOW + 1, wire_peer=None, rate=0):
        budget = Budgets(ByteBudget(rate, DropReason.BANDWIDTH, NOW)) if rate else None
        relayed = Address("198.51.100.1", 50000)
        ends = Ends(
            CLIENT, relayed, self.wire.client, self.wire.peer, self.wire.peer, budget, budget
        )
        route = Route(ends, peer, wire_peer or peer, channel, expires)
        self.routes.peers[peer] = route
        if channel:
            self.routes.channels[channel] = route
        return route

    def channel_data(self, data):
        self.forwarder.client_to_peer(self.routes, memoryview(data), NOW)

    def indication(self, peer, payload):
        data = build(
            Method.SEND, MessageClass.INDICATION, bytes(12),
            ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, payload)),
            integrity=Integrity.NONE,
        )  # fmt: skip
        self.forwarder.send_indication(self.routes, memoryview(data), NOW)

    def arrives(self, route, payload):
        self.forwarder.room[: len(payload)] = payload
        self.forwarder.peer_to_client(route, len(payload), NOW)

    @property
    def drops(self):
        return dict(self.stats.drops)


@pytest.fixture
def path():
    return Path()


class TestChannelData:
    def test_the_payload_goes_to_the_peer_and_is_counted(self, path):
        route = path.route(channel=0x4000)
        path.channel_data(b"\x40\x00\x00\x05hello")
        assert path.wire.to_peer == [(b"hello", PEER)]
        assert route.carried == (1, 5, 0, 0, 0)
        assert path.drops == {}

    def test_two_channels_in_turns_lead_to_two_peers(self, path):
        one, other = path.route(channel=0x4000), path.route(PEER_IPV6, channel=0x4001)
        for data in (b"\x40\x00\x00\x01a", b"\x40\x01\x00\x01b", b"\x40\x00\x00\x01c"):
            path.channel_data(data)
        assert path.wire.to_peer == [(b"a", PEER), (b"b", PEER_IPV6), (b"c", PEER)]
        assert (one.carried[:2], other.carried[:2]) == ((2, 2), (1, 1))

    def test_a_channel_that_was_bound_anew_leads_to_its_new_peer(self, path):
        path.route(channel=0x4000)
        path.channel_data(b"\x40\x00\x00\x01a")
        path.routes.channels[0x4000].expires = 0.0
        path.route(PEER_IPV6, channel=0x4000)
        path.channel_data(b"\x40\x00\x00\x01b")
        assert path.wire.to_peer == [(b"a", PEER), (b"b", PEER_IPV6)]

    def test_an_empty_payload_is_an_empty_packet(self, path):
        path.route(channel=0x4000)
        path.channel_data(b"\x40\x00\x00\x00")
        assert path.wire.to_peer == [(b"", PEER)]

    def test_what_stands_behind_the_length_stays_here(self, path):
        path.route(channel=0x4000)
        path.channel_data(b"\x40\x00\x00\x01x\x00\x00\x00")
        assert path.wire.to_peer == [(b"x", PEER)]

    def test_it_is_addressed_as_the_wire_has_it(self, path):
        path.route(channel=0x4000, wire_peer=BEHIND_NAT)
        path.channel_data(b"\x40\x00\x00\x01x")
        assert path.wire.to_peer == [(b"x", BEHIND_NAT)]

    @pytest.mark.parametrize("data", [b"\x40", b"\x40\x00\x00", b"\x40\x00\x00\x02x"])
    def test_cut_off_is_malformed(self, path, data):
        path.route(channel=0x4000)
        path.channel_data(data)
        assert path.drops == {DropReason.MALFORMED: 1}
        assert path.wire.to_peer == []

    def test_without_an_allocation(self, path):
        path.forwarder.client_to_peer(None, memoryview(b"\x40\x00\x00\x01x"), NOW)
        assert path.drops == {DropReason.NO_ALLOCATION: 1}

    @pytest.mark.parametrize("expires", [NOW, NOW - 1])
    def test_not_one_packet_from_the_moment_of_expiry_on(self, path, expires):
        path.route(channel=0x4000, expires=expires)
        path.channel_data(b"\x40\x00\x00\x01x")
        path.channel_data(b"\x40\x01\x00\x01x")
        assert path.drops == {DropReason.NO_CHANNEL: 2}
        assert path.wire.to_peer == []

    def test_over_the_byte_rate(self, path):
        path.route(channel=0x4000, rate=100)
        path.channel_data(b"\x40\x00\x00\x64" + bytes(100))
        path.channel_data(b"\x40\x00\x00\x01x")
        assert path.wire.to_peer == [(bytes(100), PEER)]
        assert path.drops == {DropReason.BANDWIDTH: 1}

    @pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.ENETUNREACH, errno.ECONNREFUSED])
    def test_what_the_kernel_refuses_is_counted_as_a_drop_and_not_as_sent(self, path, number):
        route = path.route(channel=0x4000)
        path.wire.error = OSError(number, "no")
        path.channel_data(b"\x40\x00\x00\x01x")
        assert path.drops == {DropReason.SEND_FAILED: 1}
        assert route.carried == NOTHING


class TestSendIndication:
    def test_a_known_peer_is_not_asked_for(self, path):
        path.route()
        path.indication(PEER, b"hello")
        assert path.wire.to_peer == [(b"hello", PEER)]
        assert path.asked == []

    def test_a_new_peer_is_asked_for_and_served(self, path):
        path.answer = path.route()
        path.routes.peers.clear()
        path.indication(PEER, b"hello")
        assert path.asked == [(CLIENT, PEER, NOW)]
        assert path.wire.to_peer == [(b"hello", PEER)]

    def test_an_expired_route_is_asked_for_anew(self, path):
        path.route(expires=NOW)
        path.indication(PEER, b"hello")
        assert len(path.asked) == 1
        assert path.wire.to_peer == []

    def test_malformed_and_without_an_allocation(self, path):
        path.forwarder.send_indication(path.routes, memoryview(b"\x00\x16" + bytes(18)), NOW)
        assert path.drops == {DropReason.MALFORMED: 1}
        path.routes = None
        path.indication(PEER, b"hello")
        assert path.drops == {DropReason.MALFORMED: 1, DropReason.NO_ALLOCATION: 1}


class TestToTheClient:
    @pytest.mark.parametrize("size", [0, 1, 3, 4, 1200, 65507])
    def test_a_channel_puts_four_bytes_before_the_payload(self, path, size):
        payload = bytes(range(256)) * 256
        route = path.route(channel=0x4001)
        path.arrives(route, payload[:size])
        header = b"\x40\x01" + size.to_bytes(2)
        assert path.wire.to_client == [(header + payload[:size], CLIENT.client)]
        assert route.carried == (0, 0, 1, size, 0)

    @pytest.mark.parametrize("peer", [PEER, PEER_IPV6])
    @pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1201, 65000])
    def test_without_a_channel_it_is_a_data_indication(self, path, peer, size):
        payload = b"\xaa" * size
        path.arrives(path.route(peer), payload)
        path.arrives(path.route(PEER), b"\xff" * 8)  # whose bytes stay behind in the buffer
        ((data, _), _) = path.wire.to_client
        message = parse_untrusted(data)
        assert (message.method, message.message_class) == (Method.DATA, MessageClass.INDICATION)
        assert message.get(registry.XOR_PEER_ADDRESS) == peer
        assert message.get(registry.DATA) == payload

    def test_the_padding_of_a_data_indication_tells_nothing_of_other_packets(self, path):
        route = path.route()
        path.arrives(route, b"secret of another")
        path.arrives(route, b"x")
        assert path.wire.to_client[1][0].endswith(b"x\x00\x00\x00")

    def test_the_longest_header_fits_before_the_payload(self, path):
        path.arrives(path.route(PEER_IPV6), b"")
        assert len(path.wire.to_client[0][0]) == HEADROOM

    @pytest.mark.parametrize(
        ("size", "fits"), [(65504, True), (65505, False), (65527, False), (65535, False)]
    )
    def test_a_datagram_that_no_message_can_hold_is_dropped(self, path, size, fits):
        """65,535 less the attribute of an IPv6 peer (24) and the head of DATA (4), in fours."""
        route = path.route(PEER_IPV6)
        path.arrives(route, bytes(size))
        assert len(path.wire.to_client) == fits
        assert path.drops == ({} if fits else {DropReason.SEND_FAILED: 1})
        assert route.carried.received_packets == fits

    def test_two_routes_have_two_transaction_ids(self, path):
        for peer in (PEER, PEER_IPV6):
            path.arrives(path.route(peer), b"x")
        one, two = (parse_untrusted(data).transaction_id for data, _ in path.wire.to_client)
        assert one != two

    def test_over_the_byte_rate(self, path):
        route = path.route(channel=0x4000, rate=4)
        path.arrives(route, b"12345")
        assert path.wire.to_client == []
        assert path.drops == {DropReason.BANDWIDTH: 1}

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (BlockingIOError(), DropReason.CLIENT_BACKLOG),
            (OSError(errno.EMSGSIZE, "too long"), DropReason.SEND_FAILED),
        ],
    )
    def test_what_did_not_go_out_is_not_counted_as_received(self, path, error, reason):
        route = path.route(channel=0x4000)
        path.wire.error = error
        path.arrives(route, b"x")
        assert path.drops == {reason: 1}
        assert route.carried == NOTHING
