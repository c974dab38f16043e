"""The engine, message by message: what goes in, what comes out (RFC 8489, RFC 8656)."""

import pytest

from tests.turn.world import OTHER_PEER, PEER, REALM, SERVER, World, code_of
from turn.allocation.books import OwnBooks
from turn.allocation.model import Limits
from turn.auth.ephemeral import mint
from turn.bandwidth import Rates
from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.integrity import Integrity, digest
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family, Icmp, family_of
from turn.routes import Transport
from turn.stats import DropReason


def resign(data, key):
    """The message with a right MESSAGE-INTEGRITY, which stands at its end."""
    covered = data[:-24]
    return covered + b"\x00\x08\x00\x14" + digest(Integrity.SHA1, key, covered)


TRANSPORT = (registry.REQUESTED_TRANSPORT, 17)


class TestCommonSteps:
    def test_binding_tells_the_client_its_address(self, world):
        client = world.client()
        reply = client.once(Method.BINDING)
        assert reply.message_class == MessageClass.SUCCESS
        assert reply.get(registry.XOR_MAPPED_ADDRESS) == client.five_tuple.client

    def test_an_unknown_required_attribute_gets_420_and_its_number(self, world):
        client = world.client()
        data = bytearray(client.encode(Method.BINDING))
        data[2:4] = (8).to_bytes(2)
        data += bytes.fromhex("7ffe0004 00000000")
        reply = client.raw(bytes(data))
        assert code_of(reply) == 420
        assert reply.get(registry.UNKNOWN_ATTRIBUTES) == (0x7FFE,)

    def test_an_unknown_optional_attribute_is_ignored(self, world):
        client = world.client()
        data = bytearray(client.encode(Method.BINDING))
        data[2:4] = (8).to_bytes(2)
        data += bytes.fromhex("fffe0004 00000000")
        assert code_of(client.raw(bytes(data))) == 0

    @pytest.mark.parametrize(
        "message_class", [MessageClass.SUCCESS, MessageClass.ERROR, MessageClass.INDICATION]
    )
    def test_what_no_client_sends_gets_no_reply_and_is_counted(self, world, message_class):
        data = build(
            Method.BINDING, message_class, bytes(12), (), key=None, integrity=Integrity.NONE,
            fingerprint=False,
        )  # fmt: skip
        assert world.client().raw(data) is None
        assert world.stats.drops[DropReason.UNEXPECTED] == 1

    def test_what_is_no_message_is_the_transports_to_drop(self, world):
        with pytest.raises(Malformed):
            world.client().raw(b"\x00\x01\x00\x04" + bytes(20))

    def test_an_attribute_of_a_wrong_length_gets_400(self, world):
        client = world.client()
        client.allocate()
        data = client.encode(Method.REFRESH, (registry.DATA, b"abc"))
        place = data.index(b"\x00\x13\x00\x03")
        broken = bytearray(data)
        broken[place : place + 2] = b"\x00\x0d"  # LIFETIME of three bytes
        assert code_of(client.raw(resign(bytes(broken), client.key))) == 400

    def test_a_reply_has_a_fingerprint_if_the_request_had_one(self, world):
        data = build(
            Method.BINDING, MessageClass.REQUEST, bytes(12), (), key=None,
            integrity=Integrity.NONE, fingerprint=True,
        )  # fmt: skip
        assert world.client().raw(data).has(registry.FINGERPRINT)
        assert not world.client().once(Method.BINDING).has(registry.FINGERPRINT)


class TestAuthentication:
    METHODS = (Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND)

    @pytest.mark.parametrize("method", METHODS)
    def test_no_credentials_get_401_with_realm_and_nonce_and_no_integrity(self, world, method):
        reply = world.client().once(method, TRANSPORT)
        assert code_of(reply) == 401
        assert reply.get(registry.REALM) == REALM
        assert reply.get(registry.NONCE)
        assert reply.integrity is Integrity.NONE

    @pytest.mark.parametrize("method", METHODS)
    def test_a_wrong_password_gets_401_and_a_fresh_nonce(self, world, method):
        client = world.client(password="wrong")
        client.once(method, TRANSPORT)
        reply = client.request(method, TRANSPORT)
        assert code_of(reply) == 401
        assert reply.get(registry.NONCE)
        assert len(world.engine.table) == 0

    @pytest.mark.parametrize("method", METHODS)
    def test_an_unknown_user_gets_401(self, world, method):
        assert code_of(world.client(username="mallory").request(method, TRANSPORT)) == 401

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("left_out", ["username", "realm", "nonce"])
    def test_integrity_without_the_rest_gets_400(self, world, method, left_out):
        client = world.client()
        nonce = client.once(method).get(registry.NONCE)
        attributes = {
            "username": (registry.USERNAME, "alice"),
            "realm": (registry.REALM, REALM),
            "nonce": (registry.NONCE, nonce),
        }
        del attributes[left_out]
        data = build(
            method, MessageClass.REQUEST, world.transaction_id(), tuple(attributes.values()),
            key=client.key, integrity=Integrity.SHA1, fingerprint=False,
        )  # fmt: skip
        assert code_of(client.raw(data)) == 400

    @pytest.mark.parametrize("method", METHODS)
    def test_a_stale_nonce_gets_438_and_a_new_one_works(self, world, method):
        client = world.client()
        client.allocate()
        world.sleep(3601)
        stale = client.nonce
        reply = client.once(method, TRANSPORT)
        assert code_of(reply) == 438
        assert reply.get(registry.NONCE) != stale
        client.nonce = reply.get(registry.NONCE)
        assert code_of(client.once(method, TRANSPORT)) not in {401, 438}

    def test_a_nonce_of_another_address_gets_438(self, world):
        here, there = world.client(), world.client(host="192.0.2.8")
        here.allocate()
        there.nonce = here.nonce
        assert code_of(there.once(Method.ALLOCATE, TRANSPORT)) == 438

    def test_a_made_up_nonce_gets_438(self, world):
        client = world.client()
        for nonce in ("", "x" * 24, "AAAA", "\N{SNOWMAN}"):
            client.nonce = nonce
            assert code_of(client.once(Method.ALLOCATE, TRANSPORT)) == 438

    @pytest.mark.parametrize(
        "secret", ["a secret of thirty-two characters", "an older secret, still good"]
    )
    def test_time_limited_credentials_of_every_secret_are_good(self, world, secret):
        username, password = mint(secret, "carol", int(world.wall) + 60)
        assert code_of(world.client(username, password).allocate()) == 0

    def test_an_expired_credential_begins_nothing(self, world):
        username, password = mint("a secret of thirty-two characters", "carol", int(world.wall) - 1)
        assert code_of(world.client(username, password).allocate()) == 401

    def test_an_expired_credential_goes_on_with_what_it_began(self, world):
        username, password = mint(
            "a secret of thirty-two characters", "carol", int(world.wall) + 60
        )
        client = world.client(username, password)
        client.allocate()
        world.sleep(120)
        assert code_of(client.refresh()) == 0
        assert code_of(client.permit(PEER)) == 0

    def test_another_user_may_not_touch_an_allocation(self, world):
        alice = world.client()
        alice.allocate()
        bob = world.client("bob", "pw2")
        bob.five_tuple = alice.five_tuple
        assert code_of(bob.refresh((registry.LIFETIME, 0))) == 441
        assert code_of(bob.permit(PEER)) == 441
        assert code_of(bob.bind(0x4000, PEER)) == 441
        assert len(world.engine.table) == 1

    def test_attributes_after_the_integrity_are_not_believed(self, world):
        client = world.client()
        client.allocate()
        data = bytearray(client.encode(Method.REFRESH))
        data += bytes.fromhex("000d0004 00000000")  # LIFETIME 0: end the allocation
        data[2:4] = (len(data) - 20).to_bytes(2)
        assert code_of(client.raw(bytes(data))) == 0
        assert len(world.engine.table) == 1


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
        assert not world.engine._allocator.policy._verdicts


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
