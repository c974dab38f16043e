"""What an allocation is made of, and what it needs from the outside."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from turn.auth.third_party import Grant
from turn.auth.users import Keys
from turn.bandwidth import Pair, Rates
from turn.codec.values import Address, Family, Icmp
from turn.routes import ClientRoutes, Ends, FiveTuple, Route, Send
from turn.telling import Facts

PERMISSION_LIFETIME = 300.0
"""Seconds (RFC 8656 §9)."""
CHANNEL_LIFETIME = 600.0
"""Seconds (RFC 8656 §12)."""
DEFAULT_LIFETIME = 600.0
"""Seconds (RFC 8656 §3.2)."""
RESERVATION_LIFETIME = 30.0
"""Seconds (RFC 8656 §7.2)."""


class Gate(Protocol):
    """What a relayed address asks of its allocation. Times are monotonic."""

    def admit(self, source: Address, now: float) -> Route | None:
        """The route of a packet from a peer that has none yet; None: dropped, and counted."""

    def unreachable(self, peer: Address, icmp: Icmp, now: float) -> None:
        """A packet to this peer drew an ICMP error."""

    def connected(self, peer: Address, stream: Any, now: float) -> bool:
        """A peer has connected (``connections.PeerStream``); False: it is to be cut off."""


class NoPort(Exception):
    """No relayed transport address can be had."""


class Relay(Protocol):
    """A relayed transport address: a socket of ours that peers see."""

    is_tcp: bool
    """Whether peers connect to it (RFC 6062), and no packets pass."""
    address: Address
    """Where packets really come from and arrive."""
    public: Address
    """What the client is told; differs from ``address`` only behind 1:1 NAT."""

    @property
    def send(self) -> Send:
        """Sends a packet to a peer from this address."""

    @property
    def send_unfragmented(self) -> Send:
        """The same with the DF bit set, for one packet; raises ``OSError`` where it is too long."""

    def start(self, routes: ClientRoutes, gate: Gate) -> None:
        """Begin to carry packets from peers to the client."""

    def close(self) -> None:
        """Release the port; no packet comes or goes any more."""


class TcpRelay(Relay, Protocol):
    """A relayed transport address that peers connect to (RFC 6062)."""

    def connect(self, peer: Address, done: Any) -> None:
        """Connect to a peer from this address; see ``connections.Connected``."""


class RelayOpener(Protocol):
    """Opens relayed transport addresses."""

    tcp: bool
    """Whether TCP allocations are to be had."""
    families: frozenset[Family]
    """Those that can be relayed from."""

    def open(self, family: Family, server: str, *, even: bool) -> Relay:
        """Open one on a random port, at ``server`` (our address that was asked) if it can be.

        :raises NoPort: none is free.
        """

    def open_tcp(self, family: Family, server: str) -> TcpRelay:
        """Open one that peers connect to. :raises NoPort: none is free."""

    def open_pair(self, family: Family, server: str) -> tuple[Relay, Relay]:
        """Open two on an even port and the next one (RFC 8656 §7.2, EVEN-PORT with R).

        :raises NoPort: none is free.
        """


class TenantLimits(NamedTuple):
    """How much all users of a tenant may have."""

    allocations: int = 0
    """0: no limit."""
    allocations_per_user: int = 0
    """0: as many as any other user."""


NO_TENANTS: Mapping[str, TenantLimits] = {}


class Limits(NamedTuple):
    """How much anyone may have; 0 means no limit where it says so."""

    allocations_per_user: int = 12
    """0: no limit."""
    allocations_per_address: int = 100
    """0: no limit."""
    allocations: int = 0
    """0: no limit."""
    permissions: int = 64
    channels: int = 64
    lifetime: float = 3600.0
    """The longest that is granted at a time, in seconds."""
    rates: Rates = Rates()
    tenants: Mapping[str, TenantLimits] = NO_TENANTS


class Owner(NamedTuple):
    """Whom an allocation belongs to."""

    username: str
    """As authenticated at Allocate; no other may touch the allocation (441)."""
    user: str
    """Whom the quota counts."""
    tenant: str = ""
    """Whose user that is; "": no tenant's. Both names say so too, while there is that tenant."""


class Channel:
    """A channel binding (RFC 8656 §12)."""

    __slots__ = ("expires", "peer")

    def __init__(self, peer: Address, expires: float) -> None:
        self.peer = peer
        self.expires = expires


class Relayed:
    """One relayed transport address of an allocation, and how long the client has it."""

    __slots__ = ("ends", "expires", "relay")

    def __init__(self, relay: Relay, ends: Ends, expires: float) -> None:
        self.relay = relay
        self.ends = ends
        self.expires = expires


class Allocation:
    """One client's allocation: what it relays from, and what it may do with it."""

    __slots__ = (
        "channels",
        "client",
        "created",
        "due",
        "grant",
        "is_tcp",
        "keys",
        "number",
        "owner",
        "permissions",
        "relayed",
        "routes",
        "since",
        "ticket",
    )

    def __init__(self, client: FiveTuple, owner: Owner, routes: ClientRoutes, now: float) -> None:
        self.client = client
        self.owner = owner
        self.routes = routes
        self.relayed: dict[Family, Relayed] = {}
        """One, or one of each family (RFC 8656 §7.2, a dual allocation)."""
        self.is_tcp = False
        """Whether it relays TCP connections, not packets (RFC 6062)."""
        self.created = self.since = now
        """When it began; and when this process took it in, of which its packets count."""
        self.number = 0
        """What an operator calls it: the table counts from 1, and gives none twice."""
        self.due = 0.0
        """When the table has to look at it next."""
        self.permissions: dict[str, float] = {}
        """Peer IP address -> expiry."""
        self.channels: dict[int, Channel] = {}
        self.grant: Grant | None = None
        """What a third party gave its client (RFC 7635)."""
        self.keys: Keys | None = None
        """What a back end said of its user: good as long as it lives."""
        self.ticket = b""
        """What its client may move it with (RFC 8016), if it asked for that."""

    @property
    def expires(self) -> float:
        """When the last of it ends; monotonic time."""
        return max(relayed.expires for relayed in self.relayed.values())

    @property
    def budgets(self) -> Pair:
        """What bounds it, each way: the same for both of its relayed addresses."""
        ends = next(iter(self.relayed.values())).ends
        return ends.sending, ends.receiving

    def is_held_by(self, owner: Owner) -> bool:
        """Whether somebody may have it, or a part of it, from elsewhere.

        With a token that is the one whose key it was refreshed with last: all holders of tokens
        have one username (RFC 7635), and who has seen a ticket pass may be another one.
        """
        user = self.grant.user if self.grant else self.owner.user
        return owner == self.owner._replace(user=user)

    def facts(self) -> Facts:
        """What an operator is told of it wherever it is named."""
        return {
            "allocation": str(self.number),
            "user": self.owner.user,
            **facts_of_tenant(self.owner.tenant),
            "transport": self.client.transport,
            "client": str(self.client.client),
            "relayed": [str(relayed.relay.public) for relayed in self.relayed.values()],
        }

    def next_due(self) -> float:
        """When something of it expires next."""
        return min(
            (
                *(relayed.expires for relayed in self.relayed.values()),
                *self.permissions.values(),
                *(channel.expires for channel in self.channels.values()),
            )
        )


def facts_of_tenant(tenant: str) -> Facts:
    """What an operator is told beside a user's name, where there are tenants."""
    return {"tenant": tenant} if tenant else {}
