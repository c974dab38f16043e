"""What the relay counts: plain integers, written anywhere, exported by ``metrics`` alone.

Every drop has a name, and that name is the counter's label, in user space and in the kernel.
"""

from enum import StrEnum
from typing import TypeVar

K = TypeVar("K")


class DropReason(StrEnum):
    """Why a packet ended here."""

    EMPTY = "empty"
    NOT_OURS = "not_ours"
    """First byte is neither STUN's nor ChannelData's (RFC 7983 §7)."""
    MALFORMED = "malformed"
    UNEXPECTED = "unexpected"
    """A well-formed STUN message that no client sends to a server."""
    REPLY_LIMIT = "reply_limit"
    """A request not proved to come from its source, over that source's share of replies."""
    NO_ALLOCATION = "no_allocation"
    NO_CHANNEL = "no_channel"
    NO_PERMISSION = "no_permission"
    REFUSED_PEER = "refused_peer"
    """The peer policy refuses that address."""
    BANDWIDTH = "bandwidth"
    """Over the rate of its allocation."""
    USER_BANDWIDTH = "user_bandwidth"
    TENANT_BANDWIDTH = "tenant_bandwidth"
    ADDRESS_BANDWIDTH = "address_bandwidth"
    TOTAL_BANDWIDTH = "total_bandwidth"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """A connection over its address's share of those that proved nothing."""
    TOO_MANY_HANDSHAKES = "too_many_handshakes"
    """A TLS or DTLS connection over its address's rate of handshakes."""
    NO_PROXY_HEADER = "no_proxy_header"
    """From a proxy that is trusted, but does not say whom it speaks for."""
    TOO_MANY_QUESTIONS = "too_many_questions"
    """A request of somebody whom only ``turn.user_url`` knows, and too much is asked already."""
    CLIENT_BACKLOG = "client_backlog"
    """The client reads its TCP or TLS connection too slowly."""
    SEND_FAILED = "send_failed"
    """The kernel refused the packet: no route, too long, or its buffers are full."""


class Tally(dict[K, int]):
    """Counts by what is counted; 0 of what never was.

    No ``Counter``: that one has a deletion of its own, so each ``+= 1`` looks ``__setitem__`` up
    in Python's way, and takes three times as long.
    """

    __slots__ = ()

    def __missing__(self, _: K) -> int:
        return 0

    def total(self) -> int:
        """Of everything."""
        return sum(self.values())


class TenantBytes(Tally[tuple[str, str]]):
    """Bytes of payload by tenant and direction, ``to_peer`` or ``to_client``."""

    __slots__ = ()

    def add(self, tenant: str, sent: int = 0, received: int = 0) -> None:
        """Count what a tenant's user has sent to a peer, and received."""
        self[tenant, "to_peer"] += sent
        self[tenant, "to_client"] += received


class Stats:
    """The counters of one relay process. Only ever growing; gauges are asked of their owners."""

    __slots__ = (
        "allocations_closed",
        "allocations_created",
        "auth",
        "drops",
        "quota_rejections",
        "received_bytes",
        "received_packets",
        "requests",
        "responses",
        "sent_bytes",
        "sent_packets",
        "tenant_bytes",
        "user_decisions",
        "webhooks",
    )

    def __init__(self) -> None:
        self.requests: Tally[tuple[str, str]] = Tally()
        """(method, transport) of each request."""
        self.responses: Tally[tuple[str, int]] = Tally()
        """(method, code) of each reply; a success counts as code 200."""
        self.auth: Tally[str] = Tally()
        """Outcome of each authentication."""
        self.allocations_created: Tally[tuple[str, str]] = Tally()
        """(transport, family) of each allocation."""
        self.allocations_closed: Tally[str] = Tally()
        """Reason of each allocation's end."""
        self.quota_rejections: Tally[str] = Tally()
        """Quota that refused an allocation, a permission or a channel."""
        self.user_decisions: Tally[str] = Tally()
        """What a back end has said of users, by how that ended."""
        self.webhooks: Tally[str] = Tally()
        """Tries to tell a back end of something, by how they ended."""
        self.drops: Tally[DropReason] = Tally()
        # Of routes that have ended; live routes count for themselves, so that the packet path
        # touches one object only. The sum of both is what is exported.
        self.tenant_bytes = TenantBytes()
        self.sent_packets = 0
        self.sent_bytes = 0
        self.received_packets = 0
        self.received_bytes = 0

    def drop(self, reason: DropReason) -> None:
        """Count one packet that ended here."""
        self.drops[reason] += 1
