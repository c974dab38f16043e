"""What an operator may switch on beyond RFC 8656; most of it widens what a stranger can reach."""

from dataclasses import dataclass

from turn.allocation.alternates import Alternates
from turn.allocation.clients import Clients
from turn.allocation.discovery import Discovery


@dataclass(frozen=True, slots=True)
class Options:
    """Switched on, or not."""

    mobility: bool = False
    """Clients may take their allocation to another network (RFC 8016)."""
    discovery: Discovery | None = None
    """Clients may find out how their NAT behaves (RFC 5780)."""
    alternates: Alternates | None = None
    """Clients are sent elsewhere where there is no room for them (RFC 8489 §10)."""
    clients: Clients | None = None
    """Clients of some networks are kept out."""
    family_of_client: bool = False
    """Who names no family (browsers never do) gets the one that it comes by, else the one that
    there is; RFC 8656 §7.2 has IPv4."""


NOTHING_MORE = Options()
