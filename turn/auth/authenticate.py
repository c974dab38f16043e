"""The long-term credential mechanism, a server's side (RFC 8489 §9.2.4), in the RFC's order."""

from typing import NamedTuple

from turn.auth.credentials import Credentials
from turn.auth.nonce import Nonces
from turn.codec import registry
from turn.codec.errors import StunError
from turn.codec.integrity import Integrity, verify
from turn.codec.message import Message

# Tried for a name that nobody has, so that such a name takes no less time than a known one.
NOBODY = bytes(16)


class Now(NamedTuple):
    """The time of an event: lifetimes run on ``monotonic``, credentials on ``wall``; seconds."""

    monotonic: float
    wall: float


class Identity(NamedTuple):
    """Who sent a request."""

    username: str
    user: str
    key: bytes
    integrity: Integrity
    """What the request was protected with, and so what protects the reply."""


class Authenticator:
    """Tells who sent a request, or what to answer instead."""

    def __init__(self, realm: str, credentials: Credentials, nonces: Nonces) -> None:
        self._realm = realm
        self._credentials = credentials
        self._nonces = nonces

    def authenticate(self, message: Message, host: str, now: Now, *, begins: bool) -> Identity:
        """Check a request's credentials.

        :param host: the client's IP address.
        :param begins: the request begins something, so that the credential may not be expired.
        :raises StunError: 401 or 438 with REALM and a fresh NONCE, or 400.
        """
        if message.integrity is Integrity.NONE:
            raise self._challenge(401, host, now)
        username = message.get(registry.USERNAME)
        realm = message.get(registry.REALM)
        nonce = message.get(registry.NONCE)
        if username is None or realm is None or nonce is None:
            raise StunError(400)
        if not self._nonces.is_fresh(nonce, host, now.wall):
            raise self._challenge(438, host, now)
        candidates = self._credentials.candidates(username, now.wall if begins else None)
        if not candidates:
            verify(message, NOBODY)
        for candidate in candidates:
            if verify(message, candidate.key):
                return Identity(username, candidate.user, candidate.key, message.integrity)
        raise self._challenge(401, host, now)

    def _challenge(self, code: int, host: str, now: Now) -> StunError:
        nonce = self._nonces.make(host, now.wall)
        return StunError(code, attributes=((registry.REALM, self._realm), (registry.NONCE, nonce)))
