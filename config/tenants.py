"""Who may use the relay by the settings: users with passwords, and tenants with their own.

A tenant is one of several applications that share a relay. Its users' names begin with its own and
a slash (``shop/alice``), so that a name says whose secret has signed it.
"""

import re
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import BeforeValidator, SecretStr

from config.section import MAKE_ONE, TOO_SHORT, Count, Problem, Section, is_short
from config.values import Passwords, Secrets, read_table

NAME = re.compile("[a-z0-9][a-z0-9_-]{0,31}")
TURNADMIN_KEY = re.compile("0x[0-9a-f]{32}")
"""What coturn takes in place of a password; as a password, it would be refused to everybody."""


class TenantSettings(Section):
    """One of several applications that share the relay."""

    secret: Secrets = ()
    """What signs its users' credentials, as `turn.secret` does for users without a tenant."""

    users: Passwords = {}  # noqa: RUF012 - pydantic copies it
    """Users with a fixed password: what is called `carol` here, clients call `shop/carol`."""

    max_allocations: Count = 0
    """Allocations that all its users may hold together, counted as for a user; 0: no limit."""

    max_allocations_per_user: Count = 0
    """The same for one of them; 0: what `turn.max_allocations_per_user` says."""

    max_bytes_per_second: Count = 0
    """Bytes of payload a second that all its users may relay together, each way; 0: no limit."""

    def contradictions(self) -> list[Problem]:
        """Nobody could be its user; users that nobody could be."""
        found = user_problems(self.users)
        if not self.secret and not self.users:
            text = (
                "is missing: a tenant needs a secret of its own to sign credentials with, or users"
            )
            found.append(Problem("secret", text))
        return found


Tenants = Annotated[dict[str, TenantSettings], BeforeValidator(read_table)]


def user_problems(users: Mapping[str, SecretStr]) -> list[Problem]:
    """Names and passwords that no client could show."""
    found = []
    for name, password in users.items():
        if not name or ":" in name:
            found.append(Problem("users", f"{name!r} is no user name: no colon, not empty"))
        if not password.get_secret_value():
            found.append(Problem("users", f"the password of {name!r} is empty"))
        if TURNADMIN_KEY.fullmatch(password.get_secret_value()):
            text = f"{name!r} has a key of coturn's turnadmin; write the password itself"
            found.append(Problem("users", text))
    return found


def tenant_problems(
    tenants: Mapping[str, TenantSettings],
    secrets: Collection[SecretStr],
    names: Mapping[str, Collection[str]],
) -> list[Problem]:
    """What leaves open whose a user is.

    :param secrets: ``turn.secret``.
    :param names: of users without a tenant, by the key that has them.
    """
    found = [
        Problem(
            "tenants",
            f"{name!r} is no name of a tenant: up to 32 of a-z, 0-9, _ and -, and no sign first",
            (name,),
        )
        for name in tenants
        if not NAME.fullmatch(name)
    ]
    for tenant, its in tenants.items():
        for name in its.users:
            bare = name.removeprefix(f"{tenant}/")
            if bare != name:
                text = f"{name!r} is called {bare!r} here: clients add the tenant's name themselves"
                found.append(Problem("tenants", text, (tenant, "users")))
    for key, listed in names.items():
        found += [
            Problem(key, f"{name!r} would be a user of the tenant {tenant!r}; call it another name")
            for name in listed
            if "/" in name and (tenant := name.partition("/")[0]) in tenants
        ]
    return found + _shared_secrets(tenants, secrets)


def _shared_secrets(
    tenants: Mapping[str, TenantSettings], own: Collection[SecretStr]
) -> list[Problem]:
    """Secrets that would let one application sign for another."""
    found, owners = [], {secret.get_secret_value(): "turn.secret" for secret in own}
    for name, tenant in tenants.items():
        for secret in tenant.secret:
            owner = owners.setdefault(secret.get_secret_value(), f"turn.tenants.{name}.secret")
            if owner != f"turn.tenants.{name}.secret":
                text = f"is the same as {owner}: each could sign for the other; {MAKE_ONE}"
                found.append(Problem("tenants", text, (name, "secret")))
    return found


def short_secrets(tenants: Mapping[str, TenantSettings]) -> list[Problem]:
    """Secrets that can be guessed."""
    return [
        Problem("tenants", TOO_SHORT, (name, "secret"))
        for name, tenant in tenants.items()
        if any(is_short(secret) for secret in tenant.secret)
    ]
