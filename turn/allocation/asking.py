"""Requests that wait until a back end has said who sent them (``turn.user_url``).

Over UDP they wait unseen, and their retransmissions with them; over a connection nothing that
follows is handled before the reply.
"""

from collections.abc import Callable
from typing import Protocol

from turn.auth.authenticate import Now
from turn.auth.users import Said
from turn.codec.errors import StunError
from turn.routes import FiveTuple

LONGEST = 4096
"""Bytes of a request that may wait: clients need a few hundred, and a message may have 64 KiB."""

GoOn = Callable[[Said | None, Now], bool]
"""Told what is said of a name, None: nobody could say; gives whether the client has its key."""


class Asks(Protocol):
    """Asks a back end."""

    def ask(self, name: str, client: FiveTuple, transaction_id: bytes, go_on: GoOn) -> bool:
        """Have a name asked about, once for the same transaction of a client.

        :param go_on: called once, and not at once; never, where ``forget`` comes before it.
        :returns: False where too much is asked already.
        """

    def forget(self, client: FiveTuple) -> None:
        """A client is gone: what it has asked for goes on for nobody."""


class NobodyToAsk:
    """There is no such back end."""

    def ask(self, name: str, client: FiveTuple, transaction_id: bytes, go_on: GoOn) -> bool:
        """Nobody is asked."""
        return False

    def forget(self, client: FiveTuple) -> None:
        """Nothing waits."""


NOBODY_TO_ASK = NobodyToAsk()


def check_length(request: bytes) -> None:
    """See that a request may wait. :raises StunError: 400, it is far longer than any has to be."""
    if len(request) > LONGEST:
        raise StunError(400, why="it is too long to wait for what turn.user_url says")


def undecided() -> StunError:
    """The refusal of a request whose sender nobody can tell now."""
    return StunError(500, why="turn.user_url does not say now who the client is")
