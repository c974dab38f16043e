"""Clients that have proved who they are: with every request they show the same nonce and name.

While the nonce is good, such a request says nothing new of either. What is left to check is that
its key protects it, so that is all that is done here, in half the time.
"""

from dataclasses import dataclass

from turn.auth.third_party import Grant
from turn.auth.users import Keys
from turn.codec import registry
from turn.codec.integrity import Integrity, verify
from turn.codec.message import Message

MOST_CLIENTS = 1024
"""That are remembered; who has to make room is looked at as a whole again."""
NEGOTIATED = frozenset(
    {
        registry.PASSWORD_ALGORITHM.number,
        registry.PASSWORD_ALGORITHMS.number,
        registry.USERHASH.number,
    }
)
"""A request that has any of these says more than a nonce and a name."""


@dataclass(slots=True)
class Identity:
    """Who sent a request."""

    username: str
    user: str
    key: bytes
    integrity: Integrity
    """What protects the reply: SHA-256 for a client that named its password algorithm."""
    grant: Grant | None = None
    """What a third party gave it, in place of a password."""
    tenant: str = ""
    """Whose user it is; "": no tenant's."""
    keys: Keys | None = None
    """What a back end said of it, where nobody else knows it."""


@dataclass(slots=True)
class Span:
    """From when to when something is good, as Unix time."""

    since: float
    until: float

    def __contains__(self, wall: float) -> bool:
        return self.since <= wall <= self.until


Shown = tuple[bytes | None, bytes | None, str]
"""A nonce, a name and a client's host."""


class Proved:
    """Remembers identities by what was shown for them."""

    def __init__(self) -> None:
        self._by_shown: dict[Shown, tuple[Identity, Span]] = {}

    def get(self, message: Message, host: str, wall: float) -> Identity | None:
        """Who sent a request; None: it has to be looked at as a whole."""
        found = self._by_shown.get(_shown(message, host))
        if found is None or not message.lacks(NEGOTIATED) or not message.has(registry.REALM):
            return None
        identity, good = found
        return identity if wall in good and verify(message, identity.key) else None

    def put(self, message: Message, host: str, identity: Identity, good: Span) -> None:
        """Remember whom a request was found to be from.

        :param good: when its nonce is.
        """
        if not message.lacks(NEGOTIATED):
            return
        self._by_shown[_shown(message, host)] = identity, good
        if len(self._by_shown) > MOST_CLIENTS:
            del self._by_shown[next(iter(self._by_shown))]


def _shown(message: Message, host: str) -> Shown:
    return message.value_of(registry.NONCE), message.value_of(registry.USERNAME), host
