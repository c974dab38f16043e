"""Rules of RFC 8489 and RFC 8656 that belong to no single method."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.turn.world import OTHER_PEER, PEER, REALM, SERVER, World, code_of
from turn.allocation.elsewhere import Fetched
from turn.allocation.model import Limits, Owner
from turn.allocation.options import Options
from turn.codec import registry
from turn.codec.integrity import Integrity, digest
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Family, family_of
from turn.routes import Transport

TRANSPORT = (registry.REQUESTED_TRANSPORT, 17)
DONT_FRAGMENT = (registry.DONT_FRAGMENT, True)
IPV6 = (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV6)
BOTH = (registry.ADDITIONAL_ADDRESS_FAMILY, Family.IPV6)
PEER6 = Address("2606:4700::99", 4000)
UNKNOWN = registry.CHANGE_REQUEST
"""Comprehension-required, and nothing that this server was set up to understand."""
LONGEST_REPLY = 548
"""What RFC 8489 §6.1 leaves of 576 bytes where nothing is known of the path."""


def failures(world: World) -> Iterator[tuple[int, Any]]:
    """Every way in which a request of who proved himself fails: the code, and the reply."""
    user, stranger = world.client(), world.client("bob", "pw2")
    user.allocate()
    user.bind(0x4000, PEER)
    yield 400, user.bind(0x4000, OTHER_PEER)
    yield 403, user.permit(Address("10.0.0.1", 1))
    yield 420, user.refresh((UNKNOWN, 0))
    yield 437, user.allocate()
    yield 437, stranger.refresh()
    yield 440, world.client().allocate((registry.REQUESTED_ADDRESS_FAMILY, 3))
    stranger.five_tuple = user.five_tuple
    yield 441, stranger.refresh()
    yield 442, world.client().request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6))
    yield 443, user.permit(PEER6)
    yield 508, world.client().allocate((registry.RESERVATION_TOKEN, bytes(8)))
    world.engine.table.set_limits(Limits(allocations_per_user=1))
    yield 486, world.client().allocate()


class TestReplies:
    def test_a_failure_repeats_the_transaction_and_says_its_code(self, world):
        for method in (Method.ALLOCATE, Method.REFRESH, Method.CONNECT):
            reply = world.client().once(method, TRANSPORT, transaction_id=b"twelve bytes")
            assert reply.transaction_id == b"twelve bytes"
            assert (reply.method, reply.message_class) == (method, MessageClass.ERROR)
            assert code_of(reply) == 401

    def test_who_proved_himself_gets_every_failure_under_integrity(self, world):
        """Else his client, which discards what nothing protects, would wait in vain."""
        for code, reply in failures(world):
            assert code_of(reply) == code
            assert reply.integrity is Integrity.SHA1, code  # the client has verified it
            assert not reply.has(registry.USERNAME), code

    def test_every_reply_fits_into_any_networks_datagrams(self, world):
        replies = [reply for _, reply in failures(world)]
        many = b"".join(number.to_bytes(2) + bytes(2) for number in range(0x7000, 0x7F00))
        request = bytearray(world.client().encode(Method.BINDING)) + many
        request[2:4] = len(many).to_bytes(2)
        replies.append(world.client().raw(bytes(request)))
        replies += [world.client().once(method) for method in (Method.BINDING, Method.ALLOCATE)]
        replies.append(World().client().allocate(BOTH))
        assert max(len(reply.raw) for reply in replies) <= LONGEST_REPLY
        assert len(replies[-4].get(registry.UNKNOWN_ATTRIBUTES)) == 64

    def test_a_success_of_a_binding_needs_no_credentials_and_no_fingerprint(self, world):
        for transport in Transport:
            reply = world.client(transport=transport).once(Method.BINDING)
            assert reply.message_class == MessageClass.SUCCESS
            assert reply.integrity is Integrity.NONE


class TestWhatIsUnknown:
    def test_a_stranger_is_asked_for_his_name_first(self, world):
        """RFC 8489 §6.3: the checks of authentication come before those of attributes."""
        assert code_of(world.client().once(Method.ALLOCATE, TRANSPORT, (UNKNOWN, 0))) == 401

    def test_who_proved_himself_is_told_what_it_was(self, world):
        reply = world.client().allocate((UNKNOWN, 0))
        assert code_of(reply) == 420
        assert reply.get(registry.UNKNOWN_ATTRIBUTES) == (UNKNOWN.number,)
        assert len(world.engine.table) == 0

    def test_what_is_unknown_and_optional_changes_nothing(self, world):
        client = world.client()
        assert code_of(client.allocate((registry.CACHE_TIMEOUT, 1), (registry.SOFTWARE, "x"))) == 0


class TestCredentials:
    def both(self, world, *, good: Integrity) -> Any:
        """A request with both integrity attributes, one of them right."""
        client = world.client()
        nonce = client.once(Method.ALLOCATE).get(registry.NONCE)
        names = (registry.USERNAME, "alice"), (registry.REALM, REALM), (registry.NONCE, nonce)
        data = bytearray(
            build(Method.ALLOCATE, MessageClass.REQUEST, bytes(12), (TRANSPORT, *names))
        )
        for integrity, number in ((Integrity.SHA1, 0x0008), (Integrity.SHA256, 0x001C)):
            data[2:4] = (len(data) - 20 + 4 + integrity.size).to_bytes(2)
            mac = digest(integrity, client.key if integrity is good else b"wrong", data)
            data += number.to_bytes(2) + integrity.size.to_bytes(2) + mac
        return world.engine.handle(data, client.five_tuple, client.send, world.now)

    def test_of_two_integrity_attributes_the_stronger_one_counts(self, world):
        for good, code in ((Integrity.SHA1, 401), (Integrity.SHA256, 0)):
            reply = parse_untrusted(self.both(world, good=good).data)
            assert code_of(reply) == code

    def test_the_longest_name_of_older_clients_is_read(self, world):
        client = world.client()
        client.nonce = client.once(Method.ALLOCATE).get(registry.NONCE)
        signed = client.encode(Method.ALLOCATE, TRANSPORT)[:-24]
        name = b"\x00\x06\x00\x05alice\x00\x00\x00"
        for size, code in ((763, 401), (764, 400)):
            longer = b"\x00\x06" + size.to_bytes(2) + b"a" * size + bytes(-size % 4)
            data = bytearray(signed.replace(name, longer))
            data[2:4] = (len(data) + 4).to_bytes(2)
            mac = digest(Integrity.SHA1, client.key, data)
            assert code_of(client.raw(bytes(data) + b"\x00\x08\x00\x14" + mac)) == code

    def test_no_password_is_kept(self):
        """RFC 8656 §6: the server stores the key, a hash of it."""
        world = World()
        world.client().allocate()
        seen: set[int] = set()
        waiting: list[Any] = [world.engine]
        while waiting:
            for each in gc.get_referents(waiting.pop()):
                if id(each) not in seen and not isinstance(each, type) and not _is_code(each):
                    seen.add(id(each))
                    assert each not in ("pw", "pw2", b"pw", b"pw2")
                    waiting.append(each)
        assert len(seen) > 100


def _is_code(thing: object) -> bool:
    """Whether it belongs to the program: functions lead to their modules, the tests with them."""
    return type(thing).__name__ in {"function", "module", "code", "builtin_function_or_method"}


class TestAddresses:
    @pytest.mark.parametrize("host", ["2002:c000:207::1", "2001:0:c000:207::1", "2001::1"])
    def test_who_comes_out_of_a_tunnel_gets_no_allocation(self, world, host):
        """RFC 8656 §21.4: 6to4 and Teredo, whose ends could be made to loop a packet."""
        assert code_of(world.client(host=host).allocate()) == 403
        assert len(world.engine.table) == 0

    @pytest.mark.parametrize("host", ["2001:db8::1", "2003::1", "192.88.99.1"])
    def test_who_only_looks_like_it_does(self, world, host):
        assert code_of(world.client(host=host).allocate()) == 0

    def test_a_family_that_is_not_named_is_ipv4(self, world):
        assert ":" not in world.client().allocate().get(registry.XOR_RELAYED_ADDRESS).host
        world.opener.families = frozenset({Family.IPV6})
        assert code_of(world.client().allocate()) == 440

    @pytest.mark.parametrize(
        ("host", "families", "relayed"),
        [
            ("2001:db8::1", set(Family), Family.IPV6),
            ("192.0.2.1", set(Family), Family.IPV4),
            ("192.0.2.1", {Family.IPV6}, Family.IPV6),
            ("2001:db8::1", {Family.IPV4}, Family.IPV4),
        ],
    )
    def test_or_the_clients_where_the_operator_says_so(self, host, families, relayed):
        world = World(options=Options(family_of_client=True))
        world.opener.families = frozenset(families)
        got = world.client(host=host).allocate().get(registry.XOR_RELAYED_ADDRESS)
        assert got is not None
        assert family_of(got) is relayed
        # A family that is named is that one, or none.
        for family in Family:
            named = (registry.REQUESTED_ADDRESS_FAMILY, family)
            code = code_of(world.client(host=host).allocate(named))
            assert code == (0 if family in families else 440)

    def test_no_relayed_address_is_had_twice(self):
        world = World(Limits(allocations_per_user=0, allocations_per_address=0))
        given = []
        while code_of(reply := world.client().allocate()) == 0:
            given.append(reply.get(registry.XOR_RELAYED_ADDRESS))
        assert len(given) == len(set(given)) == 8

    def test_a_reservation_is_held_for_thirty_seconds(self, world):
        reply = world.client().allocate((registry.EVEN_PORT, True))
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        world.sleep(29.9)
        assert code_of(world.client().allocate(token)) == 0

    def test_a_reservation_ends_when_its_user_is_revoked(self):
        world = World(Limits(allocations_per_user=2))
        world.client("bob", "pw2").allocate((registry.EVEN_PORT, True))
        reply = world.client().allocate((registry.EVEN_PORT, True))
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        world.engine.revoke("alice", world.wall + 60)
        assert [relay.closed for relay in world.opener.opened] == [False, False, True, True]
        world.engine.revoke("alice", 0)
        assert code_of(world.client().allocate(token)) == 508
        assert code_of(world.client().allocate((registry.EVEN_PORT, True))) == 0

    def test_a_reserved_port_is_of_the_addresss_share_when_it_is_claimed(self):
        world = World(Limits(allocations_per_address=2))
        reply = world.client().allocate((registry.EVEN_PORT, True))
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        assert code_of(world.client().allocate()) == 0
        assert code_of(world.client().allocate(token)) == 486
        assert code_of(world.client(host="192.0.2.8").allocate(token)) == 0

    def test_a_peer_that_is_no_address_gets_400_and_installs_nothing(self, world):
        client = world.client()
        client.allocate()
        good = registry.XOR_PEER_ADDRESS.encode(PEER, bytes(12))
        data = client.encode(
            Method.CREATE_PERMISSION,
            (registry.XOR_PEER_ADDRESS, PEER),
            (registry.XOR_PEER_ADDRESS, OTHER_PEER),
        )
        place = data.rindex(b"\x00\x12\x00\x08") + 5
        broken = data[:place] + b"\x07" + data[place + 1 : -24]  # a family that there is not
        assert len(good) == 8
        mac = digest(Integrity.SHA1, client.key, broken)
        assert code_of(client.raw(broken + b"\x00\x08\x00\x14" + mac)) == 400
        (allocation,) = world.engine.table
        assert not allocation.permissions

    def test_an_allocate_that_is_malformed_takes_nothing(self, world):
        client = world.client()
        client.nonce = client.once(Method.ALLOCATE).get(registry.NONCE)
        data = client.encode(Method.ALLOCATE, TRANSPORT, (registry.LIFETIME, 600))[:-24]
        broken = data.replace(
            b"\x00\x0d\x00\x04\x00\x00\x02\x58", b"\x00\x0d\x00\x03\x00\x00\x02\x58"
        )
        mac = digest(Integrity.SHA1, client.key, broken)
        assert code_of(client.raw(broken + b"\x00\x08\x00\x14" + mac)) == 400
        assert len(world.engine.table) == 0
        assert world.opener.opened == []


class OtherWorker:
    """Another worker that holds one port, and hands it over at once."""

    def __init__(self, relay: Any) -> None:
        self._relay = relay

    def holds(self, token: bytes) -> bool:
        return True

    def fetch(self, token: bytes, owner: Owner, done: Fetched) -> None:
        done(self._relay)


class TestDontFragment:
    """RFC 8656 §3.7, §13, §14, §15: what the attribute means depends on the two families."""

    @pytest.mark.parametrize("family", [IPV6, BOTH])
    @pytest.mark.parametrize("transport", [Transport.UDP, Transport.DTLS])
    def test_from_ipv4_to_ipv6_it_is_unknown(self, world, family, transport):
        reply = world.client(transport=transport).allocate(family, DONT_FRAGMENT)
        assert code_of(reply) == 420
        assert reply.get(registry.UNKNOWN_ATTRIBUTES) == (registry.DONT_FRAGMENT.number,)
        assert world.opener.opened == []

    def test_a_reserved_ipv6_port_is_no_way_around_it(self, world):
        reply = world.client().allocate(IPV6, (registry.EVEN_PORT, True))
        token = (registry.RESERVATION_TOKEN, reply.get(registry.RESERVATION_TOKEN))
        assert code_of(world.client().allocate(token, DONT_FRAGMENT)) == 420
        assert code_of(world.client().allocate(token)) == 0

    def test_nor_is_one_that_another_worker_held(self, world):
        held = world.opener.open(Family.IPV6, SERVER.host, even=False)
        world.engine._allocator.elsewhere = OtherWorker(held)
        client = world.client()
        client.refresh()  # learn a nonce
        token = (registry.RESERVATION_TOKEN, bytes(8))
        data = client.encode(Method.ALLOCATE, TRANSPORT, token, DONT_FRAGMENT)
        assert client.raw(data) is None  # it is answered once the port is here
        assert code_of(parse_untrusted(client.received.pop())) == 420
        assert held.closed
        assert len(world.engine.table) == 0

    @pytest.mark.parametrize(
        ("host", "transport", "family", "peer", "honoured"),
        [
            ("192.0.2.7", Transport.UDP, (), PEER, True),
            ("192.0.2.7", Transport.UDP, (IPV6,), PEER6, False),
            ("2001:db8::7", Transport.UDP, (), PEER, False),
            ("2001:db8::7", Transport.DTLS, (IPV6,), PEER6, False),
            ("192.0.2.7", Transport.TCP, (), PEER, True),
            ("192.0.2.7", Transport.TLS, (IPV6,), PEER6, True),
            ("2001:db8::7", Transport.TCP, (), PEER, True),
            ("2001:db8::7", Transport.TLS, (IPV6,), PEER6, True),
        ],
    )
    def test_in_a_translation_of_packets_it_is_ignored(
        self, world, host, transport, family, peer, honoured
    ):
        client = world.client(host=host, transport=transport)
        assert code_of(client.allocate(*family)) == 0
        client.permit(peer)
        data = build(
            Method.SEND,
            MessageClass.INDICATION,
            bytes(12),
            ((registry.XOR_PEER_ADDRESS, peer), (registry.DATA, b"x"), DONT_FRAGMENT),
        )
        world.forwarder.send_indication(client.routes, memoryview(data), world.monotonic)
        assert client.relay.sent == [(b"x", peer)]
        assert client.relay.unfragmented == ([b"x"] if honoured else [])


class TestLifetimes:
    @pytest.mark.parametrize(
        "method", [Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND, Method.CONNECT]
    )
    def test_without_an_allocation_a_request_gets_437(self, world, method):
        peer, number = (registry.XOR_PEER_ADDRESS, PEER), (registry.CHANNEL_NUMBER, 0x4000)
        assert code_of(world.client().request(method, peer, number)) == 437

    def test_channel_data_refreshes_neither_the_channel_nor_the_permission(self, world):
        client = world.client()
        client.allocate((registry.LIFETIME, 3600))
        client.bind(0x4000, PEER)
        other_port = Address(PEER.host, 9)
        for _ in range(7):
            world.sleep(90)
            client.channel_data(0x4000, b"x")
            client.relay.receive(b"y", PEER)
            client.send_indication(other_port, b"z")
        sent = [payload for payload, _ in client.relay.sent]
        # 600 s of the channel, 300 s of the permission, of which the port next door lives.
        assert (sent.count(b"x"), sent.count(b"z")) == (6, 3)
        assert len(client.received) == 6

    def test_the_end_of_one_family_leaves_the_other_whole(self, world):
        client = world.client()
        client.allocate(BOTH)
        client.permit(PEER, PEER6)
        client.bind(0x4000, OTHER_PEER)
        client.bind(0x4001, Address("2606:4700::9", 1))
        client.refresh((registry.LIFETIME, 0), IPV6)
        (allocation,) = world.engine.table
        assert set(allocation.permissions) == {PEER.host, OTHER_PEER.host}
        assert set(allocation.channels) == set(client.routes.channels) == {0x4000}
        client.send_indication(PEER, b"one")
        client.channel_data(0x4000, b"two")
        assert [payload for payload, _ in client.relay.sent] == [b"one", b"two"]

    def test_of_two_families_one_is_over_at_its_very_moment(self, world):
        client = world.client()
        client.allocate(BOTH)
        client.refresh((registry.LIFETIME, 1800), (registry.REQUESTED_ADDRESS_FAMILY, Family.IPV4))
        world.monotonic += 600  # and the engine has not looked at the clock yet
        assert code_of(client.permit(PEER6)) == 443
        assert code_of(client.refresh()) == 0  # of all that there is: it brings nothing back
        assert code_of(client.bind(0x4000, PEER6)) == 443
        assert code_of(client.bind(0x4000, PEER)) == 0

    def test_permissions_of_one_allocation_are_none_of_another(self, world):
        one, two = world.client(), world.client()
        one.allocate()
        two.allocate()
        one.permit(PEER)
        one.bind(0x4000, OTHER_PEER)
        two.send_indication(PEER, b"x")
        two.channel_data(0x4000, b"x")
        two.relay.receive(b"x", PEER)
        assert (two.relay.sent, two.received) == ([], [])
        assert code_of(two.bind(0x4000, SERVER._replace(port=one.relay.address.port))) == 0
