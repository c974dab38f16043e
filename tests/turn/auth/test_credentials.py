"""Who may use the relay: static users and signed names, against keys computed here by hand."""

import base64
import hashlib

import pytest

from turn.auth.credentials import Credentials, PasswordAlgorithm, long_term_key
from turn.auth.ephemeral import mint, password_of

WALL = 1_800_000_000.0
SECRET, OLD = "the secret of this relay", "the one before it"
NAME = "1800000600:ada"


def hmac_sha1(key: bytes, data: bytes) -> bytes:
    """RFC 2104 §2, from its formula."""
    key = (hashlib.sha1(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.sha1(bytes(byte ^ 0x36 for byte in key) + data).digest()
    return hashlib.sha1(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def key_of(username, password, realm="icebroker"):
    return hashlib.md5(f"{username}:{realm}:{password}".encode()).digest()


class TestEphemeral:
    @pytest.mark.parametrize("secret", [SECRET, "ü" * 40, "x" * 200])
    @pytest.mark.parametrize("username", [NAME, "1800000600:Ädä", "1800000600"])
    def test_the_password_is_what_every_turn_server_expects(self, secret, username):
        wanted = base64.b64encode(hmac_sha1(secret.encode(), username.encode())).decode()
        assert password_of(secret, username) == wanted

    def test_a_known_answer(self):
        """RFC 2202 §3, case 2."""
        mac = bytes.fromhex("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
        password = password_of("Jefe", "what do ya want for nothing?")
        assert base64.b64decode(password) == mac

    def test_the_username_says_when_it_expires(self):
        assert mint(SECRET, "ada", 1_800_000_600) == (NAME, password_of(SECRET, NAME))


class TestAccounts:
    def test_a_static_user(self):
        found = Credentials("icebroker", {"alice": "pw"}, []).accounts("alice", WALL)
        assert [(one.username, one.user) for one in found] == [("alice", "alice")]
        assert found[0].key(PasswordAlgorithm.MD5) == key_of("alice", "pw")
        assert (
            found[0].key(PasswordAlgorithm.SHA256) == hashlib.sha256(b"alice:icebroker:pw").digest()
        )

    def test_the_realm_is_in_the_key(self):
        assert long_term_key("alice", "other", "pw") == key_of("alice", "pw", "other")

    def test_every_secret_is_tried_in_its_order(self):
        """While secrets are rotated: the first one mints, all are accepted."""
        found = Credentials("icebroker", {}, [SECRET, OLD]).accounts(NAME, WALL)
        assert [one.key(PasswordAlgorithm.MD5) for one in found] == [
            key_of(NAME, password_of(secret, NAME)) for secret in (SECRET, OLD)
        ]
        assert {one.user for one in found} == {"ada"}

    def test_a_secret_that_was_taken_out_is_good_no_more(self):
        found = Credentials("icebroker", {}, [SECRET]).accounts(NAME, WALL)
        assert [one.key(PasswordAlgorithm.MD5) for one in found] == [
            key_of(NAME, password_of(SECRET, NAME))
        ]

    @pytest.mark.parametrize(
        ("expiry", "good"),
        [("1800000001", True), ("1800000000", True), ("1799999999", False), ("0", False),
         ("9" * 5000, True)],
    )  # fmt: skip
    def test_it_is_good_until_its_time(self, expiry, good):
        credentials = Credentials("icebroker", {}, [SECRET])
        assert bool(credentials.accounts(f"{expiry}:ada", WALL)) is good
        assert credentials.accounts(f"{expiry}:ada", None)  # for what it began in time

    @pytest.mark.parametrize(
        "username",
        ["", ":", ":ada", "ada", "ada:1800000600", "-1800000600:ada", "+1800000600:ada",
         " 1800000600:ada", "1800000600.5:ada", "1_800_000_600:ada", "0x6b49d200:ada",
         "١٨٠٠٠٠٠٦٠٠:ada", "²:ada"],
    )  # fmt: skip
    def test_what_is_no_time_is_no_credential(self, username):
        assert Credentials("icebroker", {"alice": "pw"}, [SECRET]).accounts(username, WALL) == ()
        assert Credentials("icebroker", {"alice": "pw"}, [SECRET]).accounts(username, None) == ()

    def test_without_a_secret_no_signed_name_is_good(self):
        assert Credentials("icebroker", {"alice": "pw"}, []).accounts(NAME, WALL) == ()

    def test_the_quota_counts_the_name_and_not_the_expiry(self):
        credentials = Credentials("icebroker", {}, [SECRET])
        users = {credentials.accounts(f"{WALL + more:.0f}:ada", WALL)[0].user for more in (1, 2)}
        assert users == {"ada"}
        assert credentials.accounts("1800000600:a:b", WALL)[0].user == "a:b"
        assert credentials.accounts("1800000600", WALL)[0].user == "1800000600"

    def test_a_static_user_is_known_by_his_whole_name(self):
        (one,) = Credentials("icebroker", {NAME: "pw"}, [SECRET]).accounts(NAME, WALL)
        assert one.key(PasswordAlgorithm.MD5) == key_of(NAME, "pw")
        assert one.user == NAME
