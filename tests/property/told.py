"""What may pass, kept a second time, from the RFC alone, as a client knows it from its replies.

A packet passes while a permission or a channel of its peer lives, and not a moment longer.
"""

from dataclasses import dataclass, field

from turn.codec.values import Address, Family, family_of


@dataclass
class Told:
    """What a client was told it has: when each address, permission and channel ends."""

    families: dict[Family, float]
    is_tcp: bool
    ticket: bytes = b""
    """With one (RFC 8016) its connection may end, and it comes back by another."""
    is_lost: bool = False
    """Its connection has ended, and nothing comes from there any more."""
    permissions: dict[str, float] = field(default_factory=dict)
    channels: dict[int, tuple[Address, float]] = field(default_factory=dict)

    def lives(self, peer: Address, now: float) -> bool:
        """Whether the address that reaches a peer is there."""
        return self.families.get(family_of(peer), 0.0) > now

    def may_pass(self, peer: Address, now: float) -> bool:
        """Whether a packet of that peer, or for it, may pass."""
        channel = any(to == peer and ends > now for to, ends in self.channels.values())
        permitted = channel or self.permissions.get(peer.host, 0.0) > now
        return permitted and not self.is_tcp and self.lives(peer, now)

    def end(self, family: Family) -> None:
        """An address is over, and all that belongs to it."""
        del self.families[family]
        for host in [h for h in self.permissions if (":" in h) == (family is Family.IPV6)]:
            del self.permissions[host]
        for number in [n for n, (to, _) in self.channels.items() if family_of(to) is family]:
            del self.channels[number]
