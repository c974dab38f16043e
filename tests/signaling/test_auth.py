"""Join tokens: the good ones, and every way of forging one that is known."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from signaling.auth import BadToken, Tokens

SECRET = "the secret of the join tokens, 32+"
OLD = "an older secret that is still good"
NOW = 1_800_000_000.0
GOOD = {"room": "r", "sub": "u", "exp": int(NOW) + 60}
HEADER = {"alg": "HS256", "typ": "JWT"}


def b64(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header, payload, secret=SECRET, digest="sha256"):
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(hmac.digest(secret.encode(), text.encode(), digest))}"


def test_a_good_token_says_who_where_and_how():
    token = jwt.encode(
        {**GOOD, "name": "Ada", "capacity": 3, "resume": 120, "canPublish": False}, SECRET, "HS256"
    )
    claims = Tokens([SECRET]).check(token, NOW)
    assert (claims.room, claims.subject, claims.name) == ("r", "u", "Ada")
    assert (claims.capacity, claims.resume, claims.can_publish) == (3, 120, False)


def test_the_older_secret_is_good_while_secrets_are_rotated():
    assert Tokens([SECRET, OLD]).check(jwt.encode(GOOD, OLD, "HS256"), NOW).room == "r"


def test_what_is_minted_is_good():
    tokens = Tokens([SECRET])
    assert tokens.check(tokens.mint(GOOD), NOW).subject == "u"


def test_the_time_is_an_argument():
    token = jwt.encode({**GOOD, "nbf": int(NOW)}, SECRET, "HS256")
    tokens = Tokens([SECRET])
    tokens.check(token, NOW)
    for wrong in (NOW + 120, NOW - 60, time.time() * 0):
        with pytest.raises(BadToken):
            tokens.check(token, wrong)


def forged():
    """Tokens that must not be accepted, each with its trick."""
    good = sign(HEADER, GOOD)
    head, body, signature = good.split(".")
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    no_expiry = {"room": "r"}
    yield "empty", ""
    yield "not a token", "abc"
    yield "two parts", f"{head}.{body}"
    yield "four parts", good + ".x"
    yield "no signature", f"{head}.{body}."
    yield "alg none", f"{b64({'alg': 'none'})}.{body}."
    yield "alg None", f"{b64({'alg': 'None'})}.{body}."
    yield "alg NONE signed", sign({"alg": "NONE"}, GOOD)
    yield "no alg", sign({"typ": "JWT"}, GOOD)
    yield "alg null", sign({"alg": None}, GOOD)
    yield "alg hs256", sign({"alg": "hs256"}, GOOD)
    yield "HS384", sign({"alg": "HS384"}, GOOD, digest="sha384")
    yield "HS512", sign({"alg": "HS512"}, GOOD, digest="sha512")
    yield "RS256", jwt.encode(GOOD, pem, "RS256")
    yield "HS256 with a public key", sign(HEADER, GOOD, public.decode())
    yield "another secret", sign(HEADER, GOOD, "another secret that is long enough")
    yield "the empty secret", sign(HEADER, GOOD, "")
    yield "crit", sign({**HEADER, "crit": ["x"], "x": 1}, GOOD)
    yield "jku", sign({**HEADER, "jku": "https://evil.example/keys"}, GOOD)
    yield "jwk", sign({**HEADER, "jwk": {"kty": "oct", "k": b64(b"evil")}}, GOOD)
    yield "x5u", sign({**HEADER, "x5u": "https://evil.example/cert"}, GOOD)
    yield "x5c", sign({**HEADER, "x5c": ["evil"]}, GOOD)
    yield "kid", sign({**HEADER, "kid": "../../dev/null"}, GOOD)
    yield "no exp", sign(HEADER, no_expiry)
    yield "expired", sign(HEADER, {**GOOD, "exp": int(NOW) - 60})
    yield "exp as text", sign(HEADER, {**GOOD, "exp": str(int(NOW) + 60)})
    yield "exp true", sign(HEADER, {**GOOD, "exp": True})
    yield "not yet", sign(HEADER, {**GOOD, "nbf": int(NOW) + 60})
    yield "no room", sign(HEADER, {"exp": int(NOW) + 60})
    yield "room of a wrong type", sign(HEADER, {**GOOD, "room": ["r", "other"]})
    yield "capacity of a wrong type", sign(HEADER, {**GOOD, "capacity": "many"})
    yield "canPublish of a wrong type", sign(HEADER, {**GOOD, "canPublish": "yes"})
    yield "payload changed", f"{head}.{b64({**GOOD, 'room': 'other'})}.{signature}"
    yield "signature cut", good[:-4]
    yield "payload no object", sign(HEADER, ["r"])
    yield "md5", sign({"alg": "HS256"}, GOOD, digest=hashlib.md5)
    yield "very long", sign(HEADER, {**GOOD, "x": "x" * 100_000})


@pytest.mark.parametrize("token", [pytest.param(token, id=name) for name, token in forged()])
def test_forged_tokens_are_refused(token):
    with pytest.raises(BadToken):
        Tokens([SECRET, OLD]).check(token, NOW)


def odd():
    """Claims that are signed, and that nobody could mean."""
    yield "the empty room", {"room": ""}
    yield "exp that no time is later than", {"exp": float("nan")}
    yield "exp never", {"exp": float("inf")}
    yield "resume without end", {"resume": float("inf")}
    yield "resume in the past", {"resume": -1}
    yield "resume of years", {"resume": 10**400}
    yield "a name with half a letter", {"name": "\ud800"}


@pytest.mark.parametrize("claims", [pytest.param(claims, id=name) for name, claims in odd()])
def test_what_nobody_could_mean_is_refused_though_it_is_signed(claims):
    """An application may sign what its users typed: that must not harm others in the room."""
    with pytest.raises(BadToken):
        Tokens([SECRET]).check(sign(HEADER, {**GOOD, **claims}), NOW)


def test_bytes_that_are_no_text_are_no_token():
    with pytest.raises(BadToken):
        Tokens([SECRET]).check(sign(HEADER, GOOD)[:-1] + "\udcff", NOW)


def test_where_no_secret_is_configured_no_token_is_good_and_none_is_minted():
    with pytest.raises(BadToken):
        Tokens([]).check(sign(HEADER, GOOD, ""), NOW)
    with pytest.raises(BadToken):
        Tokens([]).mint(GOOD)


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "there is none"),
        (sign(HEADER, GOOD, "another secret that is long enough"), "another secret"),
        (sign(HEADER, {**GOOD, "exp": int(NOW) - 100}), "expired 100 s ago"),
        (sign(HEADER, {**GOOD, "nbf": int(NOW) + 90}), "good only in 90 s"),
        (sign(HEADER, {"room": "r"}), '"exp"'),
        (sign(HEADER, {"exp": int(NOW) + 60}), "'room'"),
    ],
    ids=["none", "another secret", "expired", "not yet", "no exp", "no room"],
)
def test_operators_are_told_what_is_wrong_with_it(token, says):
    with pytest.raises(BadToken, match=says):
        Tokens([SECRET]).check(token, NOW)
