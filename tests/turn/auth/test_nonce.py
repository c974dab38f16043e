"""Nonces: good for who got them, for a while, and from nobody else."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turn.auth.nonce import Nonces

KEY, WALL, HOST, LIFETIME = b"the key of this relay", 1_800_000_000.0, "192.0.2.7", 600.0


@pytest.fixture
def nonces():
    return Nonces(KEY, LIFETIME)


def test_it_is_a_time_and_a_keyed_hash_of_it_and_of_the_address(nonces):
    raw = base64.b64decode(nonces.make(HOST, WALL), altchars=b"-_", validate=True)
    assert int.from_bytes(raw[:5]) == WALL
    key = hashlib.sha256(b"icebroker nonce" + KEY).digest()
    assert raw[5:] == hmac.new(key, raw[:5] + HOST.encode(), hashlib.sha256).digest()[:13]


@pytest.mark.parametrize(
    ("age", "fresh"),
    [(0, True), (599, True), (600, True), (601, False), (1e9, False), (-59, True), (-61, False)],
)
def test_its_lifetime_and_a_little_tolerance_for_other_clocks(nonces, age, fresh):
    assert nonces.is_fresh(nonces.make(HOST, WALL), HOST, WALL + age) is fresh


@pytest.mark.parametrize("host", ["192.0.2.8", "192.0.2.70", "", "2001:db8::7", "::ffff:192.0.2.7"])
def test_it_is_good_for_one_address(nonces, host):
    assert not nonces.is_fresh(nonces.make(HOST, WALL), host, WALL)


def test_a_twin_with_the_same_key_knows_it_and_another_does_not(nonces):
    nonce = nonces.make(HOST, WALL)
    assert Nonces(KEY, LIFETIME).is_fresh(nonce, HOST, WALL)
    assert not Nonces(b"another", LIFETIME).is_fresh(nonce, HOST, WALL)


def test_not_one_bit_of_it_can_be_changed(nonces):
    raw = base64.urlsafe_b64decode(nonces.make(HOST, WALL))
    for bit in range(8 * len(raw)):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        assert not nonces.is_fresh(base64.urlsafe_b64encode(forged).decode(), HOST, WALL), bit


@pytest.mark.parametrize("change", [lambda n: n[:-4], lambda n: n + "AAAA", lambda n: n[::-1],
                                    lambda n: "", lambda n: f" {n}",
                                    lambda n: n.swapcase()])  # fmt: skip
def test_what_was_cut_or_added_to_is_none_of_ours(nonces, change):
    assert not nonces.is_fresh(change(nonces.make(HOST, WALL)), HOST, WALL)


@given(nonce=st.text(max_size=200))
def test_any_text_is_stale_and_never_an_error(nonce):
    assert not Nonces(KEY, LIFETIME).is_fresh(nonce, HOST, WALL)


def test_no_two_addresses_have_the_same(nonces):
    made = {nonces.make(f"192.0.2.{number}", WALL) for number in range(256)}
    assert len(made) == 256


def test_it_is_as_short_as_a_reply_to_a_stranger_should_be(nonces):
    """It goes to whoever asks, or to a victim in whose name somebody asks."""
    assert len(nonces.make("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", WALL)) == 24
