"""What every request goes through, and who may ask (RFC 8489 §6.3 and §9.2)."""

import pytest

from tests.turn.world import PEER, REALM, code_of
from turn.auth.ephemeral import mint
from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.integrity import Integrity, digest
from turn.codec.message import build
from turn.codec.registry import MessageClass, Method
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
