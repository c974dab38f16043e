"""Who may use the relay: static users, and names with a time limit that a shared secret signs.

A name says whose it is: ``shop/alice`` is the tenant's that is called ``shop``, whose secret has to
have signed it, and no other does. So a name costs one signature, however many tenants there are.

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

from turn.auth.ephemeral import name_in, password_of


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
    tenant: str = ""
    """Whose user it is; "": nobody's but the relay's."""


class Tenant(NamedTuple):
    """Whose users have names that begin with its own."""

    users: Mapping[str, str]
    """Name, without the tenant's, and password."""
    secrets: Sequence[str]


NO_TENANTS: Mapping[str, Tenant] = {}


class Credentials:
    """Finds the accounts of a username."""

    def __init__(
        self,
        realm: str,
        users: Mapping[str, str],
        secrets: Sequence[str],
        tenants: Mapping[str, Tenant] = NO_TENANTS,
    ) -> None:
        self._realm = realm
        self._secrets = tuple(secrets)
        self._secrets_of = {name: tuple(tenant.secrets) for name, tenant in tenants.items()}
        self._users = {
            name: Account(name, name, _keys(name, realm, password))
            for name, password in users.items()
        }
        for tenant, its in tenants.items():
            for user, password in its.users.items():
                name = name_in(tenant, user)
                self._users[name] = Account(name, name, _keys(name, realm, password), tenant)
        # Tried for a name that nobody has, so that it takes no less time than a known one.
        self.nobody = Account("", "", partial(long_term_key, "", realm, ""))
        self._by_hash = {userhash_of(name, realm): name for name in self._users}

    @property
    def anonymous(self) -> bool:
        """Whether every name can be found by its USERHASH: not those that a secret signs."""
        return bool(self._users) and not self._secrets and not any(self._secrets_of.values())

    def username_of(self, userhash: bytes) -> str | None:
        """The name that a USERHASH stands for (RFC 8489 §14.4)."""
        return self._by_hash.get(userhash)

    @property
    def has_tenants(self) -> bool:
        """Whether a name may be a tenant's."""
        return bool(self._secrets_of)

    def tenant_of(self, username: str) -> str:
        """Whose a name is, signed or not; "": no tenant's."""
        if not self._secrets_of:
            return ""
        expiry, colon, name = username.partition(":")
        if colon and not (expiry.isascii() and expiry.isdigit()):
            return ""  # nobody signs such a name, nor may a static user have it
        tenant, slash, _ = (name if colon else username).partition("/")
        return tenant if slash and tenant in self._secrets_of else ""

    def accounts(self, username: str, wall: float | None) -> tuple[Account, ...]:
        """The accounts to try; none where the name is unknown or its time is over.

        :param wall: Unix time to hold the expiry against; None: an expired name will do, as
            for a request on an allocation that exists already.
        """
        static = self._users.get(username)
        if static is not None:
            return (static,)
        expiry, _, name = username.partition(":")
        tenant = self.tenant_of(username) if self._secrets_of else ""
        secrets = self._secrets_of[tenant] if tenant else self._secrets
        if not secrets or not expiry.isascii() or not expiry.isdigit():
            return ()
        if wall is not None and int(expiry[:20]) < wall:
            return ()
        return tuple(
            Account(
                username,
                name or username,
                partial(_signed_key, secret, username, self._realm),
                tenant,
            )
            for secret in secrets
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
