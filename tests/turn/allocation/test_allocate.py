"""Allocations, message by message: made, refreshed and ended (RFC 8656 §7 and §8)."""

import pytest

from tests.turn.world import PEER, SERVER, World, code_of
from turn.allocation.books import OwnBooks
from turn.allocation.model import Limits
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address, Family, family_of

TRANSPORT = (registry.REQUESTED_TRANSPORT, 17)


class TestAllocate:
    def test_the_reply_says_where_peers_send_to_and_for_how_long(self, world):
        client = world.client()
        reply = client.allocate()
        assert reply.get(registry.XOR_RELAYED_ADDRESS) == Address(SERVER.host, 50000)
        assert reply.get(registry.XOR_MAPPED_ADDRESS) == client.five_tuple.client
        assert reply.get(registry.LIFETIME) == 600

    @pytest.mark.parametrize(
        ("wanted", "granted"),
        [(0, 600), (1, 600), (600, 600), (700, 700), (3600, 3600), (2**32 - 1, 3600)],
    )
    def test_the_lifetime_is_between_the_default_and_the_limit(self, world, wanted, granted):
        assert (
            world.client().allocate((registry.LIFETIME, wanted)).get(registry.LIFETIME) == granted
        )

    def test_no_transport_gets_400_and_another_than_udp_442(self, world):
        assert code_of(world.client().request(Method.ALLOCATE)) == 400
        assert (
            code_of(world.client().request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6)))
            == 442
        )

    def test_a_second_allocation_on_a_five_tuple_gets_437(self, world):
        client = world.client()
        client.allocate()
        assert code_of(client.allocate()) == 437
        assert len(world.engine.table) == 1

    def test_the_five_tuple_is_free_at_the_very_moment_of_expiry(self, world):
        client = world.client()
        client.allocate()
        world.monotonic += 600  # and the engine has not looked at the clock yet
        assert code_of(client.allocate()) == 0

    def test_a_retransmission_gets_the_same_reply_and_no_second_port(self, world):
        client = world.client()
        client.request(Method.REFRESH)  # learn a nonce
        data = client.encode(Method.ALLOCATE, TRANSPORT)
        replies = {bytes(client.raw(data).raw) for _ in range(7)}
        assert len(replies) == 1
        assert len(world.opener.opened) == 1
        books = world.engine.table.books
        assert isinstance(books, OwnBooks)
        assert books._counts["user", "alice"] == 1

    def test_an_ipv6_relay_is_had_for_the_asking(self, world):
        reply = world.client().allocate((registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6))
        assert reply.get(registry.XOR_RELAYED_ADDRESS) == Address("2606:4700::1", 50000)

    def test_a_family_that_we_do_not_have_gets_440(self, world):
        world.opener.families = frozenset({Family.IPV4})
        assert (
            code_of(world.client().allocate((registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6)))
            == 440
        )

    def test_an_even_port_is_even(self, world):
        world.client().allocate()
        reply = world.client().allocate((registry.EVEN_PORT, False))
        assert reply.get(registry.XOR_RELAYED_ADDRESS).port == 50002

    def test_a_reserved_port_is_had_for_its_token(self, world):
        first = world.client().allocate((registry.EVEN_PORT, True))
        token = first.get(registry.RESERVATION_TOKEN)
        second = world.client().allocate((registry.RESERVATION_TOKEN, token))
        assert first.get(registry.XOR_RELAYED_ADDRESS).port == 50000
        assert second.get(registry.XOR_RELAYED_ADDRESS).port == 50001
        assert code_of(world.client().allocate((registry.RESERVATION_TOKEN, token))) == 508

    def test_a_reserved_port_of_a_relay_that_has_ipv6_alone_is_had(self, world):
        world.opener.families = frozenset({Family.IPV6})
        family = (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6)
        first = world.client().allocate(family, (registry.EVEN_PORT, True))
        token = first.get(registry.RESERVATION_TOKEN)
        second = world.client().allocate((registry.RESERVATION_TOKEN, token))
        assert second.get(registry.XOR_RELAYED_ADDRESS) == Address("2606:4700::1", 50001)

    def test_a_reservation_is_its_owners_alone_and_ends_after_30_seconds(self, world):
        token = world.client().allocate((registry.EVEN_PORT, True)).get(registry.RESERVATION_TOKEN)
        stranger = world.client("bob", "pw2")
        assert code_of(stranger.allocate((registry.RESERVATION_TOKEN, token))) == 508
        world.sleep(30)
        assert code_of(world.client().allocate((registry.RESERVATION_TOKEN, token))) == 508
        assert 50001 in world.opener.free

    @pytest.mark.parametrize(
        "other", [(registry.EVEN_PORT, False), (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV4)]
    )
    def test_a_token_goes_with_nothing_else(self, world, other):
        reply = world.client().allocate((registry.RESERVATION_TOKEN, bytes(8)), other)
        assert code_of(reply) == 400

    def test_no_port_left_gets_508(self, world):
        for _ in range(8):
            assert code_of(world.client().allocate()) == 0
        assert code_of(world.client().allocate()) == 508
        assert world.stats.quota_rejections["ports"] == 1

    @pytest.mark.parametrize(
        ("limits", "quota", "code"),
        [
            (Limits(allocations_per_user=2), "user", 486),
            (Limits(allocations_per_address=2), "address", 486),
            (Limits(allocations=2), "total", 508),
        ],
    )
    def test_quotas(self, limits, quota, code):
        world = World(limits)
        clients = [world.client() for _ in range(3)]
        assert [code_of(client.allocate()) for client in clients] == [0, 0, code]
        assert world.stats.quota_rejections[quota] == 1
        clients[0].refresh((registry.LIFETIME, 0))
        assert code_of(clients[2].allocate()) == 0

    def test_the_quota_of_a_user_does_not_forget_by_a_new_expiry(self, world):
        world = World(Limits(allocations_per_user=1))
        secret = "a secret of thirty-two characters"
        one = world.client(*mint(secret, "carol", int(world.wall) + 60))
        two = world.client(*mint(secret, "carol", int(world.wall) + 61))
        assert code_of(one.allocate()) == 0
        assert code_of(two.allocate()) == 486

    def test_the_addresses_of_one_ipv6_network_count_as_one(self):
        world = World(Limits(allocations_per_address=1))
        assert code_of(world.client(host="2001:db8::1").allocate()) == 0
        assert code_of(world.client(host="2001:db8::2").allocate()) == 486
        assert code_of(world.client(host="2001:db8:0:1::2").allocate()) == 0

    def test_reserved_ports_count_against_the_quota(self):
        world = World(Limits(allocations_per_user=3))
        for expected in (0, 0, 486):
            client = world.client()
            assert code_of(client.allocate((registry.EVEN_PORT, True))) == expected
            if not expected:
                client.refresh((registry.LIFETIME, 0))
        # two reservations are held, each a share of the quota: one allocation is left

    def test_draining_turns_new_allocations_away_and_lets_the_old_ones_go_on(self, world):
        client = world.client()
        client.allocate()
        world.engine.draining = True
        assert code_of(world.client().allocate()) == 508
        assert code_of(client.refresh()) == 0


class TestRefresh:
    def test_without_an_allocation_it_gets_437(self, world):
        assert code_of(world.client().refresh()) == 437

    def test_lifetime_zero_ends_everything_at_once_and_the_five_tuple_is_free(self, world):
        client = world.client()
        client.allocate()
        client.bind(0x4000, PEER)
        relay = client.relay
        assert client.refresh((registry.LIFETIME, 0)).get(registry.LIFETIME) == 0
        assert relay.closed
        assert list(world.routes.all()) == []
        assert client.routes is None
        assert code_of(client.allocate()) == 0

    def test_a_retransmitted_end_is_answered_alike(self, world):
        client = world.client()
        client.allocate()
        data = client.encode(Method.REFRESH, (registry.LIFETIME, 0))
        assert bytes(client.raw(data).raw) == bytes(client.raw(data).raw)
        assert code_of(client.raw(data)) == 0

    def test_it_keeps_the_allocation_alive(self, world):
        client = world.client()
        client.allocate()
        world.sleep(500)
        client.refresh()
        world.sleep(599)
        assert len(world.engine.table) == 1
        world.sleep(1)
        assert len(world.engine.table) == 0
        assert world.stats.allocations_closed["expired"] == 1

    def test_another_family_than_the_allocations_gets_443(self, world):
        client = world.client()
        client.allocate()
        assert code_of(client.refresh((registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6))) == 443


class TestDualAllocation:
    """RFC 8656 §7.2, item 9: an address of each family."""

    BOTH = (registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6)
    PEER6 = Address("2606:4700::99", 4000)

    def test_both_families_relay(self, world):
        client = world.client()
        reply = client.allocate(self.BOTH)
        four, six = reply.get_all(registry.XOR_RELAYED_ADDRESS)
        assert (family_of(four), family_of(six)) == (Family.IPV4, Family.IPV6)
        assert not reply.has(registry.ADDRESS_ERROR_CODE)
        assert code_of(client.permit(PEER, self.PEER6)) == 0
        client.send_indication(PEER, b"four")
        assert code_of(client.bind(0x4000, self.PEER6)) == 0
        client.channel_data(0x4000, b"six")
        sent = {relay.address: relay.sent for relay in world.opener.opened}
        assert sent == {four: [(b"four", PEER)], six: [(b"six", self.PEER6)]}

    def test_both_ports_are_even_where_that_is_asked_for(self, world):
        world.client().allocate()
        reply = world.client().allocate(self.BOTH, (registry.EVEN_PORT, False))
        ports = [address.port for address in reply.get_all(registry.XOR_RELAYED_ADDRESS)]
        assert ports == [50002, 50004]

    def test_one_family_may_end_alone(self, world):
        client = world.client()
        client.allocate(self.BOTH)
        client.permit(PEER, self.PEER6)
        client.bind(0x4000, self.PEER6)
        assert code_of(client.refresh(
            (registry.LIFETIME, 0), (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6)
        )) == 0  # fmt: skip
        client.channel_data(0x4000, b"x")
        client.send_indication(PEER, b"still there")
        four, six = world.opener.opened
        assert (six.closed, six.sent) == (True, [])
        assert four.sent == [(b"still there", PEER)]
        assert code_of(client.bind(0x4000, self.PEER6)) == 443
        assert code_of(client.permit(self.PEER6)) == 443
        family = (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6)
        assert code_of(client.refresh(family)) == 443
        assert code_of(client.refresh((registry.LIFETIME, 0))) == 0
        assert four.closed

    def test_the_last_family_takes_the_allocation_with_it(self, world):
        client = world.client()
        client.allocate(self.BOTH)
        for family in Family:
            client.refresh((registry.LIFETIME, 0), (registry.REQUESTED_ADDRESS_FAMILY, family))
        assert len(world.engine.table) == 0
        assert code_of(client.allocate()) == 0

    def test_each_family_has_its_own_time(self, world):
        client = world.client()
        client.allocate(self.BOTH)
        world.sleep(400)
        client.refresh((registry.REQUESTED_ADDRESS_FAMILY, Family.IPV4))
        client.permit(PEER)
        world.sleep(250)
        four, six = world.opener.opened
        assert (four.closed, six.closed) == (False, True)
        client.send_indication(PEER, b"x")
        assert four.sent == [(b"x", PEER)]
        assert code_of(client.permit(self.PEER6)) == 443

    def test_where_one_cannot_be_had_the_reply_says_why(self, world):
        world.opener.families = frozenset({Family.IPV4})
        reply = world.client().allocate(self.BOTH)
        assert len(reply.get_all(registry.XOR_RELAYED_ADDRESS)) == 1
        failure = reply.get(registry.ADDRESS_ERROR_CODE)
        assert (failure.family, failure.code) == (Family.IPV6, 440)
        world.opener.families = frozenset(Family)
        world.opener.free = {50007}
        reply = world.client().allocate(self.BOTH)
        failure = reply.get(registry.ADDRESS_ERROR_CODE)
        assert (failure.family, failure.code) == (Family.IPV6, 508)
        assert code_of(world.client().allocate(self.BOTH)) == 508
        world.opener.families = frozenset()
        assert code_of(world.client().allocate(self.BOTH)) == 440

    @pytest.mark.parametrize(
        "attributes",
        [
            ((registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV4),),
            (BOTH, (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6)),
            (BOTH, (registry.EVEN_PORT, True)),
            (BOTH, (registry.RESERVATION_TOKEN, bytes(8))),
        ],
    )
    def test_what_does_not_go_together_gets_400(self, world, attributes):
        assert code_of(world.client().allocate(*attributes)) == 400
        assert world.opener.opened == []

    def test_it_counts_for_two(self):
        world = World(Limits(allocations_per_user=3))
        client, other = world.client(), world.client()
        assert code_of(client.allocate(self.BOTH)) == 0
        assert code_of(other.allocate(self.BOTH)) == 486
        assert code_of(other.allocate()) == 0
        assert code_of(world.client().allocate()) == 486
        family = (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6)
        client.refresh((registry.LIFETIME, 0), family)
        assert code_of(world.client().allocate()) == 0
