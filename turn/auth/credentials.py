"""Who may use the relay: static users, and names with a time limit that a shared secret signs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from turn.auth.ephemeral import password_of


class Candidate(NamedTuple):
    """A key that a username may be using."""

    key: bytes
    """The long-term key, MD5(username:realm:password) (RFC 8489 §9.2.2)."""
    user: str
    """Whom the quota counts: the username without its expiry."""


class Credentials:
    """Finds the keys of a username."""

    def __init__(self, realm: str, users: Mapping[str, str], secrets: Sequence[str]) -> None:
        self._realm = realm
        self._secrets = tuple(secrets)
        self._users = {
            name: Candidate(long_term_key(name, realm, password), name)
            for name, password in users.items()
        }

    def candidates(self, username: str, wall: float | None) -> tuple[Candidate, ...]:
        """The keys to try; none where the name is unknown or its time is over.

        :param wall: Unix time to hold the expiry against; None: an expired name will do, as
            for a request on an allocation that exists already.
        """
        static = self._users.get(username)
        if static is not None:
            return (static,)
        expiry, _, name = username.partition(":")
        if not self._secrets or not expiry.isascii() or not expiry.isdigit():
            return ()
        if wall is not None and int(expiry[:20]) < wall:
            return ()
        return tuple(
            Candidate(
                long_term_key(username, self._realm, password_of(secret, username)),
                name or username,
            )
            for secret in self._secrets
        )


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """MD5(username ":" realm ":" password), as RFC 8489 §9.2.2 has it for every client of today."""
    text = f"{username}:{realm}:{password}".encode()
    return hashlib.md5(text, usedforsecurity=False).digest()
