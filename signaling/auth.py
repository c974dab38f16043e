"""Join tokens: JWTs that say who may enter which room (RFC 7519, HS256 and nothing else)."""

import math
from collections.abc import Sequence
from typing import Any

import jwt
from jwt.exceptions import InvalidSignatureError, InvalidTokenError

from turn.auth.ephemeral import name_in

ALGORITHM = "HS256"
# Headers by which a token would choose its own key, or demand what we do not do (RFC 8725 §3).
REFUSED_HEADERS = frozenset({"crit", "jku", "jwk", "x5u", "x5c", "kid"})
LONGEST_RESUME = 30 * 86400.0
"""Seconds."""
LEEWAY = 5
"""Seconds that the clocks of whoever mints and whoever checks may differ."""
MOST_TOKEN_BYTES = 4096


class BadToken(Exception):
    """The token is not good; the text says why, for operators only."""


class Claims:
    """What a token says."""

    __slots__ = ("can_publish", "capacity", "name", "resume", "room", "subject")

    def __init__(self, payload: dict[str, Any]) -> None:
        """Read the claims. :raises BadToken: one has a wrong type."""
        self.room: str = _claim(payload, "room", str, None)
        """The one room that it is for; "" = any, which a token cannot say."""
        self.subject: str = _claim(payload, "sub", str, "")
        self.name: str = _claim(payload, "name", str, "")
        self.capacity: int | None = _claim(payload, "capacity", int, None, optional=True)
        self.resume: float | None = _claim(payload, "resume", (int, float), None, optional=True)
        if self.resume is not None and not 0 <= self.resume <= LONGEST_RESUME:
            raise BadToken("claim 'resume' is below 0, or more than a month")
        self.can_publish: bool = _claim(payload, "canPublish", bool, True)


class Tokens:
    """Checks tokens against the secrets, mints them with the first."""

    def __init__(self, secrets: Sequence[str], tenant: str = "") -> None:
        """Know the secrets. :param tenant: of the relay, whose users they are all for."""
        self._secrets = tuple(secrets)
        self._tenant = tenant
        self._revoked: dict[str, float] = {}

    def revoke(self, user: str, until: float) -> None:
        """Take no token of this user until then. :param until: Unix time."""
        self._revoked[user] = until
        if not until:
            del self._revoked[user]

    def is_revoked(self, user: str, now: float) -> bool:
        """Whether somebody revoked it. :param now: Unix time."""
        return self._revoked.get(user, 0.0) > now

    def check_subject(self, claims: Claims, now: float) -> None:
        """See that nobody revoked whom they are for. :raises BadToken:"""
        if self.is_revoked(name_in(self._tenant, claims.subject), now):
            raise BadToken("its subject was revoked")

    def set_secrets(self, secrets: Sequence[str]) -> None:
        """Check and mint with these from now on."""
        self._secrets = tuple(secrets)

    @property
    def required(self) -> bool:
        """Whether rooms are closed to those without a token."""
        return bool(self._secrets)

    def check(self, token: str, now: float) -> Claims:
        """What a token says. :raises BadToken: it is forged, expired, or not a join token.

        :param now: Unix time in seconds.
        """
        if not token:
            raise BadToken("there is none")
        if len(token) > MOST_TOKEN_BYTES:
            raise BadToken("too long")
        if not token.isascii():  # of a header, whose bytes may be no text at all
            raise BadToken("not base64")
        try:
            headers = jwt.get_unverified_header(token)
        except InvalidTokenError as error:
            raise BadToken(str(error)) from None
        if REFUSED_HEADERS & headers.keys():
            raise BadToken("a header that is not accepted")
        reason = "no token is accepted here"
        for secret in self._secrets:
            try:
                payload = jwt.decode(
                    token,
                    secret,
                    algorithms=[ALGORITHM],
                    # The time is an argument here, so it is checked here.
                    options={"require": ["exp"], "verify_exp": False, "verify_nbf": False,
                             "verify_iat": False, "verify_aud": False},
                )  # fmt: skip
            except InvalidSignatureError:
                reason = "it is signed with another secret than signaling.token_secret"
            except InvalidTokenError as error:
                reason = str(error)
            else:
                _check_times(payload, now)
                claims = Claims(payload)
                if not claims.room:
                    raise BadToken("it names no room")  # a blank in a form must not open all
                self.check_subject(claims, now)
                return claims
        raise BadToken(reason)

    def mint(self, claims: dict[str, Any]) -> str:
        """A token with these claims, signed with the first secret.

        :raises BadToken: there is no secret.
        """
        if not self._secrets:
            raise BadToken("no token_secret is configured")
        return jwt.encode(claims, self._secrets[0], algorithm=ALGORITHM)


def _check_times(payload: dict[str, Any], now: float) -> None:
    expires = _claim(payload, "exp", (int, float), None)
    begins = _claim(payload, "nbf", (int, float), 0)
    if expires + LEEWAY < now:
        raise BadToken(f"it expired {now - expires:.0f} s ago (or a clock is wrong)")
    if begins - LEEWAY > now:
        raise BadToken(f"it is good only in {begins - now:.0f} s (or a clock is wrong)")


def _claim(
    payload: dict[str, Any], name: str, kind: Any, default: Any, *, optional: bool = False
) -> Any:
    value = payload.get(name, default)
    if value is None and optional:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadToken(f"claim {name!r} is missing or of a wrong type")
    # JSON as Python reads it has NaN, which no time is later than, and halves of characters, which
    # nobody could be told of.
    if (isinstance(value, float) and not math.isfinite(value)) or not is_text(value):
        raise BadToken(f"claim {name!r} is no number, or no text")
    return value


def is_text(value: object) -> bool:
    """False for a ``str`` that cannot be written as UTF-8: bytes of a header, a lone surrogate."""
    return not (isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value))
