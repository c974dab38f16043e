"""Who may use the relay: static users, and names with a time limit that a shared secret signs.

No password is kept (RFC 8656 §6): of a static user's only the keys; a signed name's is made of the
secret when it is needed, and the keys of those that ask are remembered for a while.

Names, passwords and the realm come prepared (OpaqueString, RFC 8265): configuration does it, and
a client does it with what it sends.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import lru_cache, partial
from typing import NamedTuple

from turn.auth.ephemeral import password_of


class PasswordAlgorithm(IntEnum):
    """How a long-term key is made (RFC 8489 §18.5)."""

    MD5 = 1
    SHA256 = 2


class Account(NamedTuple):
    """A name and a password that a client may be using."""

    username: str
    user: str
    """Whom the quota counts: the username without its expiry."""
    key: Callable[[int], bytes]
    """The key that a ``PasswordAlgorithm`` makes of the password, which is itself not kept
    (RFC 8656 §6)."""


class Credentials:
    """Finds the accounts of a username."""

    def __init__(self, realm: str, users: Mapping[str, str], secrets: Sequence[str]) -> None:
        self._realm = realm
        self._secrets = tuple(secrets)
        self._users = {
            name: Account(name, name, _keys(name, realm, password))
            for name, password in users.items()
        }
        # Tried for a name that nobody has, so that it takes no less time than a known one.
        self.nobody = Account("", "", partial(long_term_key, "", realm, ""))
        self._by_hash = {userhash_of(name, realm): name for name in users}

    @property
    def anonymous(self) -> bool:
        """Whether every name can be found by its USERHASH: not those that a secret signs."""
        return bool(self._users) and not self._secrets

    def username_of(self, userhash: bytes) -> str | None:
        """The name that a USERHASH stands for (RFC 8489 §14.4)."""
        return self._by_hash.get(userhash)

    def accounts(self, username: str, wall: float | None) -> tuple[Account, ...]:
        """The accounts to try; none where the name is unknown or its time is over.

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
            Account(
                username,
                name or username,
                partial(_signed_key, secret, username, self._realm),
            )
            for secret in self._secrets
        )


def _keys(username: str, realm: str, password: str) -> Callable[[int], bytes]:
    keys = {int(one): long_term_key(username, realm, password, one) for one in PasswordAlgorithm}
    return keys.__getitem__


@lru_cache(maxsize=1024)  # a client asks several times in a row: 4 µs each, or 0.2
def _signed_key(secret: str, username: str, realm: str, algorithm: int) -> bytes:
    return long_term_key(username, realm, password_of(secret, username), algorithm)


def long_term_key(
    username: str, realm: str, password: str, algorithm: int = PasswordAlgorithm.MD5
) -> bytes:
    """The key of a long-term credential (RFC 8489 §9.2.2, §18.5.1).

    MD5 is what every client of today uses: its choice is the protocol's, not ours.
    """
    text = f"{username}:{realm}:{password}".encode()
    if algorithm == PasswordAlgorithm.SHA256:
        return hashlib.sha256(text).digest()
    return hashlib.md5(text, usedforsecurity=False).digest()


def userhash_of(username: str, realm: str) -> bytes:
    """SHA-256(username ":" realm), what a client sends to keep its name to itself."""
    return hashlib.sha256(f"{username}:{realm}".encode()).digest()
