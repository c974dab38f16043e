"""Users who may begin nothing for a while, because an operator has said so."""

from turn.auth.ephemeral import expiry_of
from turn.codec.errors import StunError


class Revocations:
    """Who they are. Times are Unix times."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[float, float]] = {}

    def set(self, user: str, until: float, spent: float) -> None:
        """Take a user in, or let it begin again (both 0).

        :param until: it may begin nothing until then.
        :param spent: credentials that end by then are of no use any more.
        """
        if until or spent:
            self._of[user] = until, spent
        else:
            self._of.pop(user, None)

    def check(self, username: str, user: str, wall: float) -> None:
        """See that somebody may begin something. :raises StunError: 403."""
        if user not in self._of:
            return
        until, spent = self._of[user]
        if until > wall:
            raise StunError(403, why="an operator has revoked the user")
        if 0 < expiry_of(username) <= spent:
            raise StunError(403, why="an operator has ended the credentials")
        if spent < wall:
            del self._of[user]
