"""A room: who is in it, in which order they came, and what the others are told of a change.

The order decides the roles and outlives a lost socket: who was there first is polite, the
newcomer offers and is impolite. Both ends of a pair compute the opposite, so glare cannot wedge.
"""

from typing import NamedTuple

from msgspec import Raw

from signaling.protocol.messages import PeerEntry, PeerEvent

PRESENT = "present"
SUSPENDED = "suspended"


class RoomFull(Exception):
    """There is no place left."""


class Member:
    """One session in a room."""

    __slots__ = ("meta", "name", "order", "peer", "quiet", "session", "state")

    def __init__(
        self, session: str, peer: str, name: str, meta: Raw, *, quiet: bool = False
    ) -> None:
        """Describe somebody. :param quiet: the others are not told, nor is it told of them."""
        self.session = session
        self.peer = peer
        self.name = name
        self.meta = meta
        self.order = 0
        self.state = PRESENT
        self.quiet = quiet


class Notice(NamedTuple):
    """What one member is to be told."""

    session: str
    event: PeerEvent


class Room:
    """The members of a room. Every change gives the notices that it causes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._members: dict[str, Member] = {}
        self._joined = 0

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, session: str) -> bool:
        return session in self._members

    def join(self, member: Member, capacity: int) -> list[Notice]:
        """Let somebody in; of who is in already, take over the ``meta``.

        :raises RoomFull: ``capacity`` members are there already.
        """
        known = self._members.get(member.session)
        if known is not None:
            return self._describe(known, member.meta)
        if len(self._members) >= capacity:
            raise RoomFull
        self._joined += 1
        member.order = self._joined
        self._members[member.session] = member
        return self._notices(member, "join")

    def leave(self, session: str, reason: str) -> list[Notice]:
        """Let somebody go, once: a second time nothing happens."""
        member = self._members.pop(session, None)
        return self._notices(member, "leave", reason) if member else []

    def suspend(self, session: str) -> list[Notice]:
        """Somebody's socket is lost."""
        return self._change(session, SUSPENDED, "suspended")

    def resume(self, session: str) -> list[Notice]:
        """Somebody is back."""
        return self._change(session, PRESENT, "resumed")

    def roster(self, session: str) -> list[PeerEntry]:
        """Everyone else, as ``session`` sees them, in the order they came."""
        me = self._members[session]
        return [
            PeerEntry(other.peer, other.name, other.meta, me.order < other.order, other.state)
            for other in self._others(me)
        ]

    def others(self, session: str) -> list[str]:
        """The sessions of everyone else whom ``session`` sees."""
        return [other.session for other in self._others(self._members[session])]

    def meta_of(self, session: str) -> Raw:
        """What a member says of itself."""
        return self._members[session].meta

    def quiet_names(self) -> list[str]:
        """The names of the quiet members."""
        return [member.name for member in self._members.values() if member.quiet]

    def _others(self, member: Member) -> list[Member]:
        if member.quiet:
            return []
        return [o for o in self._members.values() if o is not member and not o.quiet]

    def _describe(self, member: Member, meta: Raw) -> list[Notice]:
        if member.meta == meta:
            return []
        member.meta = meta
        return self._notices(member, "update")

    def _change(self, session: str, state: str, event: str) -> list[Notice]:
        member = self._members.get(session)
        if member is None or member.state == state:
            return []
        member.state = state
        return self._notices(member, event)

    def _notices(self, member: Member, event: str, reason: str = "") -> list[Notice]:
        return [
            Notice(
                other.session,
                PeerEvent(
                    event, self.name, member.peer, member.name, member.meta,
                    other.order < member.order, reason,
                ),
            )
            for other in self._others(member)
        ]  # fmt: skip
