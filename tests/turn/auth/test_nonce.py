"""Nonces: good for who got them, for a while, and from nobody else."""

import base64
import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turn.auth.nonce import COOKIE_CHARACTERS, Feature, Nonces, has_password_algorithms

KEY, WALL, HOST, LIFETIME = b"the key of this relay", 1_800_000_000.0, "192.0.2.7", 600.0
PORT, FEATURES = 40000, Feature.PASSWORD_ALGORITHMS
COOKIE = "obMatJos2gAAA"


@pytest.fixture
def nonces():
    return Nonces(KEY, LIFETIME, FEATURES)


def test_it_is_a_time_and_a_keyed_hash_of_it_and_of_the_address(nonces):
    nonce = nonces.make(HOST, PORT, WALL)
    assert nonce[:COOKIE_CHARACTERS] == COOKIE
    raw = base64.b64decode(nonce[COOKIE_CHARACTERS:], validate=True)
    assert (int.from_bytes(raw[:5]), int.from_bytes(raw[5:7])) == (WALL, PORT)
    key = hashlib.sha256(f"icebroker nonce {COOKIE}".encode() + KEY).digest()
    covered = raw[:7] + HOST.encode()
    assert raw[7:] == hashlib.blake2s(covered, key=key, digest_size=14).digest()


@pytest.mark.parametrize(
    ("age", "fresh"),
    [(0, True), (599, True), (600, True), (601, False), (1e9, False), (-59, True), (-61, False)],
)
def test_its_lifetime_and_a_little_tolerance_for_other_clocks(nonces, age, fresh):
    assert nonces.is_fresh(nonces.make(HOST, PORT, WALL), HOST, WALL + age) is fresh


@pytest.mark.parametrize("host", ["192.0.2.8", "192.0.2.70", "", "2001:db8::7", "::ffff:192.0.2.7"])
def test_it_is_good_for_one_address(nonces, host):
    assert not nonces.is_fresh(nonces.make(HOST, PORT, WALL), host, WALL)


def test_a_twin_with_the_same_key_knows_it_and_another_does_not(nonces):
    nonce = nonces.make(HOST, PORT, WALL)
    assert Nonces(KEY, LIFETIME, FEATURES).is_fresh(nonce, HOST, WALL)
    assert not Nonces(b"another", LIFETIME, FEATURES).is_fresh(nonce, HOST, WALL)


def test_not_one_bit_of_it_can_be_changed(nonces):
    raw = base64.b64decode(nonces.make(HOST, PORT, WALL)[COOKIE_CHARACTERS:])
    for bit in range(8 * len(raw)):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        assert not nonces.is_fresh(COOKIE + base64.b64encode(forged).decode(), HOST, WALL), bit


@pytest.mark.parametrize("change", [lambda n: n[:-4], lambda n: n + "AAAA", lambda n: n[::-1],
                                    lambda n: "", lambda n: f" {n}",
                                    lambda n: n.swapcase()])  # fmt: skip
def test_what_was_cut_or_added_to_is_none_of_ours(nonces, change):
    assert not nonces.is_fresh(change(nonces.make(HOST, PORT, WALL)), HOST, WALL)


@given(nonce=st.text(max_size=200))
def test_any_text_is_stale_and_never_an_error(nonce):
    has_password_algorithms(nonce)
    assert not Nonces(KEY, LIFETIME, FEATURES).is_fresh(nonce, HOST, WALL)


def test_no_two_addresses_have_the_same(nonces):
    made = {nonces.make(f"192.0.2.{number}", PORT, WALL) for number in range(256)}
    assert len(made) == 256


def test_it_is_as_short_as_a_reply_to_a_stranger_should_be(nonces):
    """It goes to whoever asks, or to a victim in whose name somebody asks."""
    assert len(nonces.make("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", PORT, WALL)) == 41


def test_two_sockets_of_a_host_get_two_nonces_and_each_is_good_on_both(nonces):
    """RFC 8489 §9.2.4 wants two; a NAT may give a client another port at any time."""
    one, two = (nonces.make(HOST, port, WALL) for port in (1000, 1001))
    assert one != two
    assert nonces.is_fresh(one, HOST, WALL)
    assert nonces.is_fresh(two, HOST, WALL)


def test_the_features_are_under_the_hash(nonces):
    nonce = nonces.make(HOST, PORT, WALL)
    assert has_password_algorithms(nonce)
    for cookie in ("obMatJos2AAAA", "obMatJos2wAAA", "", "obMatJos1gAAA"):
        assert not nonces.is_fresh(cookie + nonce[COOKIE_CHARACTERS:], HOST, WALL)
    assert not has_password_algorithms("obMatJos2AAAA" + nonce[COOKIE_CHARACTERS:])


def test_without_a_feature_the_cookie_says_so():
    """RFC 8489 §9.2: 24 bits of zero, and not nothing at all."""
    assert Nonces(KEY, LIFETIME, Feature(0)).make(HOST, PORT, WALL).startswith("obMatJos2AAAA")


def test_it_is_text_that_needs_no_quotes(nonces):
    """RFC 8489 §14.10: qdtext of RFC 3261, fewer than 128 characters."""
    for port in range(300):
        nonce = nonces.make(HOST, port, WALL + port)
        assert len(nonce) < 128
        assert set(nonce) <= set(string.ascii_letters + string.digits + "+/=")
