"""What RFC 8489 added to the long-term credential mechanism: algorithms, anonymity, bid-down."""

import base64

import pytest

from tests.turn.world import DEFAULT_LIMITS, REALM, SECRET, World, code_of
from turn.auth.authenticate import Authenticator
from turn.auth.credentials import Credentials, PasswordAlgorithm, long_term_key, userhash_of
from turn.auth.ephemeral import mint
from turn.auth.nonce import Feature
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
    nonce = made.challenge(401, Address("192.0.2.1", 1), World().now).attributes[0][1]
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


def test_the_keys_of_the_rfc():
    # RFC 8489 §9.2.2 gives this one.
    assert long_term_key("user", "realm", "pass").hex() == "8493fbc53ba582fb4c044c456bdc40eb"
    assert len(long_term_key("user", "realm", "pass", PasswordAlgorithm.SHA256)) == 32
