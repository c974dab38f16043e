"""The long-term mechanism in the RFC's order (RFC 8489 §9.2.4): which check speaks first."""

from typing import Any

import pytest

from turn.auth.authenticate import Authenticator, Now
from turn.auth.credentials import Credentials, long_term_key
from turn.auth.ephemeral import mint
from turn.auth.nonce import Feature, Nonces
from turn.auth.proved import Identity
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.integrity import Integrity
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Algorithm

REALM, HOST, NOW = "icebroker", "192.0.2.7", Now(1000.0, 1_800_000_000.0)
CLIENT = Address(HOST, 40000)
OFFERED = (Algorithm(2), Algorithm(1))  # SHA-256, MD5
SECRETS = ["the first of two secrets", "the second of two secrets"]
NONCES = Nonces(b"key", 600, Feature.PASSWORD_ALGORITHMS)
AUTHENTICATOR = Authenticator(REALM, Credentials(REALM, {"alice": "pw"}, SECRETS), b"key", 600)


def request(
    username="alice",
    password="pw",
    *,
    nonce=None,
    realm=REALM,
    integrity=Integrity.SHA1,
    without=(),
):
    attributes = {
        "username": (registry.USERNAME, username),
        "realm": (registry.REALM, realm),
        "nonce": (registry.NONCE, NONCES.make(HOST, 40000, NOW.wall) if nonce is None else nonce),
    }
    kept = tuple(value for name, value in attributes.items() if name not in without)
    key = long_term_key(username, REALM, password)
    return parse_untrusted(
        build(
            Method.REFRESH, MessageClass.REQUEST, bytes(12), kept,
            key=None if integrity is Integrity.NONE else key, integrity=integrity,
        )
    )  # fmt: skip


def authenticate(message, *, begins=True):
    return AUTHENTICATOR.authenticate(message, CLIENT, NOW, begins=begins)


def refusal(message, **kwargs):
    """The code, and what the reply asks for with it."""
    with pytest.raises(StunError) as refused:
        authenticate(message, **kwargs)
    error = refused.value
    reply = parse_untrusted(
        build(
            Method.REFRESH, MessageClass.ERROR, bytes(12), error.attributes, written=error.written
        )
    )
    challenge: dict[Any, Any] = {}
    for each in (registry.REALM, registry.NONCE, registry.PASSWORD_ALGORITHMS):
        if reply.has(each):
            challenge[each] = reply.get(each)
    return error.code, challenge


@pytest.mark.parametrize("integrity", [Integrity.SHA1, Integrity.SHA256])
def test_a_good_request_says_who_sent_it(integrity):
    identity = authenticate(request(integrity=integrity))
    key = long_term_key("alice", REALM, "pw")
    assert identity == Identity("alice", "alice", key, Integrity.SHA1)


@pytest.mark.parametrize("secret", SECRETS)
def test_signed_names_of_every_secret(secret):
    username, password = mint(secret, "ada", int(NOW.wall) + 60)
    identity = authenticate(request(username, password))
    assert (identity.username, identity.user) == (username, "ada")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(request(integrity=Integrity.NONE), id="no integrity"),
        pytest.param(request(password="wrong"), id="wrong password"),
        pytest.param(request("mallory"), id="unknown user"),
        pytest.param(request(*mint("a third secret of sixteen", "ada", 1 << 40)), id="foreign"),
        pytest.param(request(*mint(SECRETS[0], "ada", 1)), id="expired"),
    ],
)
def test_401_with_a_challenge(message):
    code, challenge = refusal(message)
    assert code == 401
    assert challenge[registry.REALM] == REALM
    assert challenge[registry.PASSWORD_ALGORITHMS] == OFFERED
    assert NONCES.is_fresh(challenge[registry.NONCE], HOST, NOW.wall)


@pytest.mark.parametrize("left_out", ["username", "realm", "nonce"])
def test_400_where_the_rest_is_lacking(left_out):
    assert refusal(request(without={left_out})) == (400, {})


@pytest.mark.parametrize("nonce", ["", "made up", NONCES.make("192.0.2.8", 40000, NOW.wall),
                                   NONCES.make(HOST, 40000, NOW.wall - 601)])  # fmt: skip
def test_438_for_who_knows_the_password_and_401_for_others(nonce):
    code, challenge = refusal(request(nonce=nonce))
    assert code == 438
    assert challenge[registry.REALM] == REALM
    assert challenge[registry.PASSWORD_ALGORITHMS] == OFFERED
    assert NONCES.is_fresh(challenge[registry.NONCE], HOST, NOW.wall)
    assert refusal(request(nonce=nonce, password="wrong"))[0] == 401


def test_an_expired_name_goes_on_with_what_it_began_and_begins_nothing():
    message = request(*mint(SECRETS[0], "ada", int(NOW.wall) - 1))
    assert refusal(message, begins=True)[0] == 401
    assert authenticate(message, begins=False).user == "ada"


def test_unknown_and_known_names_are_refused_alike():
    """No list of users is to be had from the answers."""
    assert refusal(request(password="wrong")) == refusal(request("mallory"))


def test_a_name_that_nobody_has_costs_a_check_all_the_same(monkeypatch):
    checked: list[bytes] = []

    def count(_, key):
        checked.append(key)
        return False

    monkeypatch.setattr("turn.auth.authenticate.verify", count)
    for message in (request("mallory"), request(password="wrong")):
        refusal(message)
    assert len(checked) == 2


def test_nobody_has_no_password():
    """The key that stands in for a name that nobody has is no key that lets anybody in."""
    data = build(
        Method.REFRESH, MessageClass.REQUEST, bytes(12),
        ((registry.USERNAME, "nobody"), (registry.REALM, REALM),
         (registry.NONCE, NONCES.make(HOST, 40000, NOW.wall))),
        key=long_term_key("", REALM, ""), integrity=Integrity.SHA1,
    )  # fmt: skip
    assert refusal(parse_untrusted(data))[0] == 401
