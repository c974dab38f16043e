"""Thirty join tokens that are none of ours, by what is wrong with each (RFC 8725)."""

import base64
import json

import jwt

SECRET = "the secret of the join tokens, 32+"
LATER = 1 << 40
GOOD = {"room": "r", "exp": LATER}


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _ours(claims: dict[str, object], **headers: object) -> str:
    return jwt.encode(claims, SECRET, "HS256", headers=headers)


_HEAD, _BODY, _SIGNATURE = jwt.encode(GOOD, SECRET, "HS256").split(".")
_OTHER = jwt.encode({**GOOD, "room": "other"}, SECRET, "HS256").split(".")
FORGED = {
    "other secret": jwt.encode(GOOD, "x" * 32, "HS256"),
    "no secret": jwt.encode(GOOD, "", "none"),
    "none in capitals": f"{_part({'alg': 'None', 'typ': 'JWT'})}.{_BODY}.",
    "none, with our signature": f"{_part({'alg': 'none'})}.{_BODY}.{_SIGNATURE}",
    "HS384": jwt.encode(GOOD, SECRET * 2, "HS384"),
    "HS512": jwt.encode(GOOD, SECRET * 2, "HS512"),
    "HS512 in the header only": f"{_part({'alg': 'HS512'})}.{_BODY}.{_SIGNATURE}",
    "RS256 in the header only": f"{_part({'alg': 'RS256'})}.{_BODY}.{_SIGNATURE}",
    "no algorithm": f"{_part({'typ': 'JWT'})}.{_BODY}.{_SIGNATURE}",
    "expired": _ours({**GOOD, "exp": 1}),
    "no expiry": _ours({"room": "r"}),
    "expiry as text": _ours({**GOOD, "exp": "9999999999x"}),
    "expiry as truth": _ours({**GOOD, "exp": True}),
    "not yet": _ours({**GOOD, "nbf": LATER}),
    "no room": _ours({"exp": LATER}),
    "room as a list": _ours({**GOOD, "room": ["r"]}),
    "capacity as text": _ours({**GOOD, "capacity": "100"}),
    "may publish as text": _ours({**GOOD, "canPublish": "yes"}),
    "kid": _ours(GOOD, kid="x"),
    "jku": _ours(GOOD, jku="https://evil.example/keys"),
    "jwk": _ours(GOOD, jwk={"kty": "oct", "k": "eHg"}),
    "x5u": _ours(GOOD, x5u="https://evil.example/chain"),
    "crit": f"{_part({'alg': 'HS256', 'crit': ['exp']})}.{_BODY}.{_SIGNATURE}",
    "body of another": f"{_HEAD}.{_OTHER[1]}.{_SIGNATURE}",
    "signature of another": f"{_HEAD}.{_BODY}.{_OTHER[2]}",
    "no signature": f"{_HEAD}.{_BODY}.",
    "a byte short": f"{_HEAD}.{_BODY}.{_SIGNATURE[:-2]}",
    "two parts": f"{_HEAD}.{_BODY}",
    "no token": "no token",
    "too long": f"{_HEAD}.{_BODY}.{_SIGNATURE}" + "A" * 5000,
}
