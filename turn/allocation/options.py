"""What an operator may switch on beyond RFC 8656; all of it widens what a stranger can reach."""

from typing import NamedTuple


class Options(NamedTuple):
    """Switched on, or not."""

    mobility: bool = False
    """Clients may take their allocation to another network (RFC 8016)."""


NOTHING_MORE = Options()
