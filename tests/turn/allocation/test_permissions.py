"""Permissions and channels, message by message (RFC 8656 §9 to §12)."""

import pytest

from tests.turn.world import OTHER_PEER, PEER, World, code_of
from turn.allocation.model import Limits
from turn.codec import registry
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.stats import DropReason


class TestCreatePermission:
    def test_it_lets_a_peer_in_for_five_minutes(self, world):
        client = world.client()
        client.allocate()
        client.relay.receive(b"early", PEER)
        assert code_of(client.permit(PEER)) == 0
        client.relay.receive(b"hello", PEER)
        client.relay.receive(b"from another port", Address(PEER.host, 9))
        world.sleep(299)
        client.relay.receive(b"late", PEER)
        world.sleep(1)
        client.relay.receive(b"too late", PEER)
        payloads = [parse_untrusted(data).get(registry.DATA) for data in client.received]
        assert payloads == [b"hello", b"from another port", b"late"]
        assert world.stats.drops[DropReason.NO_PERMISSION] == 2

    def test_a_refreshed_permission_keeps_its_routes(self, world):
        client = world.client()
        client.allocate()
        client.permit(PEER)
        client.send_indication(PEER, b"one")
        world.sleep(200)
        client.permit(PEER)
        world.sleep(299)
        client.send_indication(PEER, b"two")
        world.sleep(1)
        client.send_indication(PEER, b"three")
        assert [data for data, _ in client.relay.sent] == [b"one", b"two"]

    def test_one_bad_peer_and_none_is_installed(self, world):
        client = world.client()
        client.allocate()
        assert code_of(client.permit(PEER, Address("10.0.0.1", 1))) == 403
        assert code_of(client.permit(PEER, Address("2606:4700::1", 1))) == 443
        client.relay.receive(b"x", PEER)
        assert client.received == []

    def test_no_peer_at_all_gets_400(self, world):
        client = world.client()
        client.allocate()
        assert code_of(client.permit()) == 400

    def test_too_many_get_508_and_old_ones_can_still_be_refreshed(self):
        world = World(Limits(permissions=2))
        client = world.client()
        client.allocate()
        assert code_of(client.permit(PEER, OTHER_PEER)) == 0
        assert code_of(client.permit(Address("1.1.1.1", 1))) == 508
        assert code_of(client.permit(PEER)) == 0

    def test_too_many_are_not_even_judged(self, world):
        """Thousands fit into one message, and each judgement costs as much as a packet."""
        client = world.client()
        client.allocate()
        crowd = [Address(f"8.8.{number >> 8}.{number & 255}", 1) for number in range(4000)]
        assert code_of(client.permit(Address("10.0.0.1", 1), *crowd)) == 508
        assert not world.engine._allocator.peers.policy._verdicts


class TestChannelBind:
    def test_packets_flow_both_ways_in_channel_data(self, world):
        client = world.client()
        client.allocate()
        assert code_of(client.bind(0x4000, PEER)) == 0
        client.channel_data(0x4000, b"ping")
        client.relay.receive(b"pong", PEER)
        assert client.relay.sent == [(b"ping", PEER)]
        assert client.received == [b"\x40\x00\x00\x04pong"]

    @pytest.mark.parametrize("number", [0x4000, 0x4FFF, 0x5000, 0x7FFF])
    def test_numbers_that_deployed_clients_use_are_good(self, world, number):
        client = world.client()
        client.allocate()
        assert code_of(client.bind(number, PEER)) == 0

    @pytest.mark.parametrize("number", [0, 0x3FFF, 0x8000, 0xFFFF])
    def test_other_numbers_get_400(self, world, number):
        client = world.client()
        client.allocate()
        assert code_of(client.bind(number, PEER)) == 400

    def test_a_number_for_two_peers_or_a_peer_with_two_numbers_gets_400(self, world):
        client = world.client()
        client.allocate()
        client.bind(0x4000, PEER)
        assert code_of(client.bind(0x4000, OTHER_PEER)) == 400
        assert code_of(client.bind(0x4001, PEER)) == 400
        client.channel_data(0x4000, b"still")
        assert client.relay.sent == [(b"still", PEER)]

    def test_it_installs_the_permission(self, world):
        client = world.client()
        client.allocate()
        client.bind(0x4000, PEER)
        client.relay.receive(b"x", Address(PEER.host, 9))
        assert parse_untrusted(client.received[0]).get(registry.DATA) == b"x"

    def test_it_ends_after_ten_minutes_and_its_number_is_free(self, world):
        client = world.client()
        client.allocate((registry.LIFETIME, 3600))
        client.bind(0x4000, PEER)
        world.sleep(599)
        client.channel_data(0x4000, b"in time")
        world.sleep(1)
        client.channel_data(0x4000, b"late")
        assert client.relay.sent == [(b"in time", PEER)]
        assert code_of(client.bind(0x4000, OTHER_PEER)) == 0

    def test_a_refresh_keeps_it_beyond_ten_minutes(self, world):
        client = world.client()
        client.allocate((registry.LIFETIME, 3600))
        client.bind(0x4000, PEER)
        world.sleep(500)
        client.bind(0x4000, PEER)
        world.sleep(599)
        client.channel_data(0x4000, b"x")
        assert client.relay.sent == [(b"x", PEER)]

    def test_it_takes_the_place_of_indications(self, world):
        client = world.client()
        client.allocate()
        client.permit(PEER)
        client.relay.receive(b"one", PEER)
        client.bind(0x4000, PEER)
        client.relay.receive(b"two", PEER)
        client.send_indication(PEER, b"three")
        assert parse_untrusted(client.received[0]).get(registry.DATA) == b"one"
        assert client.received[1] == b"\x40\x00\x00\x03two"
        assert client.relay.sent == [(b"three", PEER)]

    @pytest.mark.parametrize("lacking", [registry.CHANNEL_NUMBER, registry.XOR_PEER_ADDRESS])
    def test_a_lacking_attribute_gets_400(self, world, lacking):
        client = world.client()
        client.allocate()
        attributes = {registry.CHANNEL_NUMBER: 0x4000, registry.XOR_PEER_ADDRESS: PEER}
        del attributes[lacking]
        assert code_of(client.request(Method.CHANNEL_BIND, *attributes.items())) == 400

    def test_too_many_get_508(self):
        world = World(Limits(channels=1))
        client = world.client()
        client.allocate()
        client.bind(0x4000, PEER)
        assert code_of(client.bind(0x4001, OTHER_PEER)) == 508

    def test_a_retransmission_refreshes_and_takes_no_memory(self, world):
        """RFC 8656 §10.2, §12.2: nothing special is needed to answer it alike."""
        client = world.client()
        client.allocate()
        peer = (registry.XOR_PEER_ADDRESS, PEER)
        before = len(world.engine._replies)
        for asked in (
            client.encode(Method.CREATE_PERMISSION, peer),
            client.encode(Method.CHANNEL_BIND, (registry.CHANNEL_NUMBER, 0x4000), peer),
        ):
            replies = {bytes(client.raw(asked).raw) for _ in range(3)}
            assert len(replies) == 1
            assert code_of(client.raw(asked)) == 0
        assert len(world.engine._replies) == before
        (allocation,) = world.engine.table
        assert (len(allocation.permissions), len(allocation.channels)) == (1, 1)
