"""What RFC 8489 added to the long-term credential mechanism: algorithms, anonymity, bid-down."""

import base64

import pytest

from tests.turn.world import DEFAULT_LIMITS, REALM, SECRET, World, code_of
from turn.auth.authenticate import Authenticator
from turn.auth.credentials import Credentials, PasswordAlgorithm, long_term_key, userhash_of
from turn.auth.ephemeral import mint
from turn.auth.nonce import Feature, Nonces, has_password_algorithms
from turn.codec import registry
from turn.codec.integrity import Integrity, verify
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Algorithm

MD5, SHA256 = Algorithm(PasswordAlgorithm.MD5), Algorithm(PasswordAlgorithm.SHA256)
OFFERED = (SHA256, MD5)
TRANSPORT = (registry.REQUESTED_TRANSPORT, 17)


def ask(
    world,
    *attributes,
    algorithm=PasswordAlgorithm.MD5,
    integrity=Integrity.SHA1,
    nonce=None,
    name=(registry.USERNAME, "alice"),
    account=("alice", "pw"),
):
    """An Allocate whose every part is chosen; gives the reply and the key."""
    client = world.client()
    nonce = nonce or client.once(Method.ALLOCATE).get(registry.NONCE)
    key = long_term_key(account[0], REALM, account[1], algorithm)
    named = (name,) if name else ()
    data = build(
        Method.ALLOCATE,
        MessageClass.REQUEST,
        world.transaction_id(),
        (TRANSPORT, *named, (registry.REALM, REALM), (registry.NONCE, nonce), *attributes),
        key=key,
        integrity=integrity,
    )
    reply = world.engine.handle(data, client.five_tuple, client.send, world.now)
    return parse_untrusted(reply.data), key


def chose(algorithm, offered=OFFERED):
    return (registry.PASSWORD_ALGORITHMS, offered), (registry.PASSWORD_ALGORITHM, algorithm)


def test_a_challenge_lists_the_algorithms_and_says_so_in_the_nonce(world):
    reply = world.client().once(Method.ALLOCATE)
    assert reply.get(registry.PASSWORD_ALGORITHMS) == OFFERED
    nonce = reply.get(registry.NONCE)
    assert nonce.startswith("obMatJos2")
    assert base64.b64decode(nonce[9:13]) == b"\x80\x00\x00"


@pytest.mark.parametrize("algorithm", [MD5, SHA256])
@pytest.mark.parametrize("integrity", [Integrity.SHA1, Integrity.SHA256])
def test_who_names_an_algorithm_gets_a_reply_under_sha256(world, algorithm, integrity):
    reply, key = ask(world, *chose(algorithm), algorithm=algorithm.number, integrity=integrity)
    assert code_of(reply) == 0
    assert reply.integrity is Integrity.SHA256
    assert verify(reply, key)


@pytest.mark.parametrize("integrity", [Integrity.SHA1, Integrity.SHA256])
def test_who_names_none_is_taken_for_a_client_of_before(world, integrity):
    reply, key = ask(world, integrity=integrity)
    assert code_of(reply) == 0
    assert reply.integrity is Integrity.SHA1
    assert verify(reply, key)


@pytest.mark.parametrize(
    "attributes",
    [
        ((registry.PASSWORD_ALGORITHM, SHA256),),
        ((registry.PASSWORD_ALGORITHMS, OFFERED),),
        chose(MD5, (MD5,)),
        chose(MD5, (MD5, SHA256)),
        chose(SHA256, (SHA256,)),
        chose(Algorithm(3)),
        chose(Algorithm(PasswordAlgorithm.SHA256, b"salt")),
        ((registry.PASSWORD_ALGORITHM, SHA256), (registry.PASSWORD_ALGORITHMS, ())),
    ],
)
def test_a_bid_down_gets_400(world, attributes):
    for algorithm in PasswordAlgorithm:
        assert code_of(ask(world, *attributes, algorithm=algorithm)[0]) == 400
    assert len(world.engine.table) == 0


def test_a_nonce_whose_features_were_taken_out_is_not_ours(world):
    nonce = world.client().once(Method.ALLOCATE).get(registry.NONCE)
    for stripped in ("obMatJos2AAAA" + nonce[13:], nonce[13:], "obMatJos2wAAA" + nonce[13:]):
        reply, _ = ask(world, nonce=stripped)
        assert code_of(reply) == 438
        assert reply.get(registry.PASSWORD_ALGORITHMS) == OFFERED


def test_the_key_of_another_algorithm_gets_401(world):
    reply, _ = ask(world, *chose(SHA256), algorithm=PasswordAlgorithm.MD5)
    assert code_of(reply) == 401
    reply, _ = ask(world, *chose(MD5), algorithm=PasswordAlgorithm.SHA256)
    assert code_of(reply) == 401


def test_the_rfcs_order_of_refusals(world):
    # A wrong password with a stale nonce is 401, not 438: the password is checked first.
    stale = world.client().once(Method.ALLOCATE).get(registry.NONCE)
    world.sleep(4000)
    assert code_of(ask(world, nonce=stale, account=("alice", "wrong"))[0]) == 401
    assert code_of(ask(world, nonce=stale)[0]) == 438
    assert code_of(ask(world, *chose(Algorithm(9)), nonce=stale)[0]) == 400


def test_a_userhash_stands_for_a_static_user(world):
    name = (registry.USERHASH, userhash_of("alice", REALM))
    reply, key = ask(world, name=name)
    assert code_of(reply) == 0
    assert verify(reply, key)
    (allocation,) = world.engine.table
    assert allocation.owner.username == "alice"
    assert code_of(ask(world, name=(registry.USERHASH, bytes(32)))[0]) == 401
    assert code_of(ask(world, name=None)[0]) == 400


def test_time_limited_names_work_with_sha256_too(world):
    username, password = mint(SECRET, "carol", int(world.wall) + 60)
    reply, _ = ask(
        world,
        *chose(SHA256),
        algorithm=PasswordAlgorithm.SHA256,
        integrity=Integrity.SHA256,
        name=(registry.USERNAME, username),
        account=(username, password),
    )
    assert code_of(reply) == 0


@pytest.mark.parametrize(
    ("users", "secrets", "anonymous"),
    [({"a": "b"}, [], True), ({"a": "b"}, ["secret"], False), ({}, ["secret"], False)],
)
def test_anonymity_is_offered_where_every_name_can_be_found(users, secrets, anonymous):
    assert Credentials(REALM, users, secrets).anonymous is anonymous
    made = Authenticator(REALM, Credentials(REALM, users, secrets), b"key", 60)
    nonce = made._challenge(401, Address("192.0.2.1", 1), World().now).attributes[1][1]
    features = int.from_bytes(base64.b64decode(nonce[9:13]))
    assert bool(features & Feature.USERNAME_ANONYMITY) is anonymous


class TestMinimum:
    def test_only_the_strong_way_is_offered_and_taken(self):
        world = World(DEFAULT_LIMITS, minimum=Integrity.SHA256)
        only = (SHA256,)
        challenge = world.client().once(Method.ALLOCATE)
        assert challenge.get(registry.PASSWORD_ALGORITHMS) == only
        strong = {"algorithm": PasswordAlgorithm.SHA256, "integrity": Integrity.SHA256}
        assert code_of(ask(world, *chose(SHA256, only), **strong)[0]) == 0
        assert code_of(ask(world)[0]) == 401
        assert code_of(ask(world, integrity=Integrity.SHA256)[0]) == 401
        weak = {"algorithm": PasswordAlgorithm.SHA256, "integrity": Integrity.SHA1}
        assert code_of(ask(world, *chose(SHA256, only), **weak)[0]) == 401
        assert code_of(ask(world, *chose(MD5, only))[0]) == 400


class TestNonces:
    nonces = Nonces(b"key", 100, Feature.PASSWORD_ALGORITHMS)

    def test_two_sockets_of_a_host_get_two_nonces_and_each_is_good_on_both(self):
        one, two = (self.nonces.make("192.0.2.1", port, 1e9) for port in (1000, 1001))
        assert one != two
        assert self.nonces.is_fresh(one, "192.0.2.1", 1e9)
        assert self.nonces.is_fresh(two, "192.0.2.1", 1e9)

    @pytest.mark.parametrize(("age", "fresh"), [(0, True), (100, True), (101, False), (-59, True),
                                                (-61, False)])  # fmt: skip
    def test_a_nonce_has_its_time(self, age, fresh):
        nonce = self.nonces.make("192.0.2.1", 1, 1e9)
        assert self.nonces.is_fresh(nonce, "192.0.2.1", 1e9 + age) is fresh

    def test_every_changed_character_counts(self):
        nonce = self.nonces.make("192.0.2.1", 1, 1e9)
        for place in range(len(nonce)):
            other = "A" if nonce[place] != "A" else "B"
            changed = nonce[:place] + other + nonce[place + 1 :]
            assert not self.nonces.is_fresh(changed, "192.0.2.1", 1e9), place

    def test_a_twin_knows_it_and_a_stranger_does_not(self):
        nonce = self.nonces.make("2001:db8::1", 1, 1e9)
        twin = Nonces(b"key", 100, Feature.PASSWORD_ALGORITHMS)
        assert twin.is_fresh(nonce, "2001:db8::1", 1e9)
        assert not twin.is_fresh(nonce, "2001:db8::2", 1e9)
        for other in (Nonces(b"other", 100, Feature.PASSWORD_ALGORITHMS),
                      Nonces(b"key", 100, Feature(0))):  # fmt: skip
            assert not other.is_fresh(nonce, "2001:db8::1", 1e9)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "obMatJos2",
            "obMatJos2gAA",
            "obMatJos2gA!A",
            "\u2603",
            "obMatJos2\u2603AAA",
            "x" * 700,
        ],
    )
    def test_what_is_no_nonce_is_none(self, text):
        assert not self.nonces.is_fresh(text, "192.0.2.1", 1e9)
        assert not has_password_algorithms(text)


def test_the_keys_of_the_rfc():
    # RFC 8489 §9.2.2 gives this one.
    assert long_term_key("user", "realm", "pass").hex() == "8493fbc53ba582fb4c044c456bdc40eb"
    assert len(long_term_key("user", "realm", "pass", PasswordAlgorithm.SHA256)) == 32
