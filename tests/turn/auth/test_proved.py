"""A client that proved who it is: its next requests are judged as if they were the first."""

from typing import Any

import pytest

from turn.auth.authenticate import Authenticator, Now
from turn.auth.credentials import Credentials, long_term_key
from turn.auth.ephemeral import mint
from turn.auth.nonce import Feature, Nonces
from turn.auth.proved import MOST_CLIENTS, Identity
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.integrity import Integrity
from turn.codec.message import Message, build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address, Algorithm

REALM, HOST, WALL, LIFETIME = "icebroker", "192.0.2.7", 1_800_000_000.0, 600
SECRET = "a secret of more than sixteen"
NONCES = Nonces(b"key", LIFETIME, Feature.PASSWORD_ALGORITHMS)
NONCE = NONCES.make(HOST, 40000, WALL)
NAME, PASSWORD = mint(SECRET, "ada", int(WALL) + 60)
BOTH = (Algorithm(2), Algorithm(1))


def authenticator(*secrets: str) -> Authenticator:
    return Authenticator(REALM, Credentials(REALM, {}, secrets or [SECRET]), b"key", LIFETIME)


def request(
    *more: tuple[registry.Attribute[Any], object],
    name: str = NAME,
    password: str = PASSWORD,
    nonce: str = NONCE,
    realm: str | None = REALM,
    integrity: Integrity = Integrity.SHA1,
) -> Message:
    shown = [(registry.USERNAME, name), (registry.NONCE, nonce), *more]
    if realm is not None:
        shown.append((registry.REALM, realm))
    key = long_term_key(name, REALM, password)
    data = build(
        Method.REFRESH, MessageClass.REQUEST, bytes(12), shown, key=key, integrity=integrity
    )
    return parse_untrusted(data)


def judged(
    by: Authenticator, message: Message, wall: float, host: str, *, begins: bool
) -> Identity | int:
    try:
        return by.authenticate(message, Address(host, 40000), Now(0.0, wall), begins=begins)
    except StunError as error:
        return error.code


@pytest.mark.parametrize("host", [HOST, "192.0.2.8"])
@pytest.mark.parametrize("after", [-61, -60, 0, 59, 61, LIFETIME, LIFETIME + 1])
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        pytest.param(request(), id="the same"),
        pytest.param(request(integrity=Integrity.SHA256), id="by SHA-256"),
        pytest.param(request(password="wrong"), id="wrong password"),
        pytest.param(request(realm=None), id="no realm"),
        pytest.param(request(realm="another"), id="another realm"),
        pytest.param(request(nonce=NONCES.make(HOST, 40001, WALL)), id="another nonce"),
        pytest.param(request(nonce="made up"), id="no nonce of ours"),
        pytest.param(request(name=NAME + "a"), id="another name"),
        pytest.param(request((registry.PASSWORD_ALGORITHM, Algorithm(1))), id="bids down"),
        pytest.param(
            request((registry.PASSWORD_ALGORITHM, Algorithm(1)),
                    (registry.PASSWORD_ALGORITHMS, BOTH)), id="negotiates"),
        pytest.param(request((registry.USERHASH, bytes(32))), id="has a hash too"),
    ],
)  # fmt: skip
def test_it_is_judged_as_at_first(message, begins, after, host):
    knows = authenticator()
    assert isinstance(judged(knows, request(), WALL, HOST, begins=True), Identity)
    now = WALL + after
    expected = judged(authenticator(), message, now, host, begins=begins)
    assert judged(knows, message, now, host, begins=begins) == expected
    assert judged(knows, message, now, host, begins=begins) == expected


def test_only_its_own_secret_is_tried_again(monkeypatch):
    def as_a_whole(*_):
        raise AssertionError

    knows = authenticator("another secret of sixteen", SECRET)
    first = judged(knows, request(), WALL, HOST, begins=True)
    monkeypatch.setattr("turn.auth.authenticate.verify", as_a_whole)
    assert judged(knows, request(), WALL, HOST, begins=False) == first


def test_what_is_remembered_has_an_end():
    knows = authenticator()
    for number in range(MOST_CLIENTS + 10):
        nonce = NONCES.make(f"192.0.2.{number % 250}", number, WALL)
        host = f"192.0.2.{number % 250}"
        assert isinstance(judged(knows, request(nonce=nonce), WALL, host, begins=True), Identity)
    assert len(knows._proved._by_shown) == MOST_CLIENTS


def test_who_proves_nothing_is_not_remembered():
    knows = authenticator()
    for message in (request(password="wrong"), request(nonce="made up")):
        assert judged(knows, message, WALL, HOST, begins=True) in {401, 438}
    assert not knows._proved._by_shown
