"""Signaling as an operator sees it: its figures, and the rooms and peers of this node."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from signaling.broker.base import Unavailable
from signaling.connection import Session
from signaling.hub import Hub

MOST_NAMED = 20
"""Other nodes that a list names."""


class NodeEntry(Struct, frozen=True):
    """A node that shares the Redis."""

    id: str
    """Its own, new at each start."""
    name: str
    """Of the machine that it runs on."""
    sessions: int
    """Whose sockets it holds."""


SIGNALING_EVENTS = (
    "session_opened", "session_closed", "session_refused", "message_refused", "room_joined",
    "room_left",
)  # fmt: skip
"""Kinds of events that signaling tells of."""


class SignalingFigures(Struct, frozen=True, kw_only=True):
    """How signaling goes. Counts are since the start."""

    connections: int
    rooms: int
    peers: int
    broker: str
    """``memory`` or ``redis``."""
    broker_up: bool
    nodes: list[NodeEntry]
    """All that share the Redis, the one that answers first; empty without Redis. What else is told
    here is the answering node's alone."""
    messages: dict[str, int]
    """By type."""
    refused: dict[str, int]
    """Messages answered by an error, by code."""
    disconnects: dict[str, int]
    """By reason."""
    paths: dict[str, int]
    """Paths that calls took, as browsers told: host, srflx and prflx are direct."""
    credentials_issued: int
    certificate_not_after: float | None
    """Unix time; null where a proxy speaks HTTPS in its place."""
    listening: list[str]


class PeerEntry(Struct, frozen=True, kw_only=True):
    """Somebody who is connected to this node, or may still come back to it."""

    id: str
    name: str
    user: str
    rooms: list[str]
    connected: bool


class PeerDetails(PeerEntry, frozen=True, kw_only=True):
    """All of a peer."""

    subject: str
    """Of the token that it came with; "" without one."""
    may_send: bool
    room_of_token: str
    """The one room that the token is for; "" = any."""
    resume_window: float
    """Seconds."""


class RoomEntry(Struct, frozen=True, kw_only=True):
    """A room with somebody of this node in it."""

    id: str
    peers: int
    connected: int


class RoomDetails(RoomEntry, frozen=True, kw_only=True):
    """A room and who of this node is in it."""

    members: list[PeerEntry]


class Present(NamedTuple):
    """A session and its rooms."""

    session: Session
    rooms: list[str]


class _OfThisNode:
    """What is listed of this node alone."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def part(self) -> str:
        """Of what the list is a part, and where the rest is; "": it is the whole."""
        broker = self._hub.broker
        if not broker.waits:
            return ""
        try:
            here, *others = await broker.nodes()
        except (Unavailable, ValueError):
            return "Only what is at this node; Redis is away, so the others are not known."
        if not others:
            return ""
        told = ", ".join(f"{one.name} ({one.sessions} sessions)" for one in others[:MOST_NAMED])
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        return f"Only what is at this node, on {here.name}. Ask the others too: {told}{more}."


class Peers(_OfThisNode):
    """The peers of this node (``Collection`` of the admin listener)."""

    name, noun = "peers", "peer"
    ends = "Remove a peer: its session ends for good, and its rooms hear that it has left."
    summary, details = PeerEntry, PeerDetails

    async def snapshot(self) -> Mapping[str, Present]:
        """Those that there are now."""
        return {
            session.record.peer: Present(session, rooms)
            for session, rooms in await self._hub.present()
        }

    def summarize(self, thing: Present, now: float) -> PeerEntry:
        """One in a line."""
        return _entry(thing)

    async def inspect(self, thing: Present, now: float) -> PeerDetails:
        """All of it."""
        grant = thing.session.record.grant
        return PeerDetails(
            **_fields(thing),
            subject=grant.subject,
            may_send=grant.can_publish,
            room_of_token=grant.room,
            resume_window=grant.resume_window,
        )

    async def end(self, thing: Present) -> None:
        """Remove it. :raises ConnectionError: the broker is away."""
        await _remove(self._hub, thing.session)


class Rooms(_OfThisNode):
    """The rooms with somebody of this node in them."""

    name, noun = "rooms", "room"
    ends = "Close a room: everyone of this node who is in it is removed."
    summary, details = RoomEntry, RoomDetails

    async def snapshot(self) -> Mapping[str, tuple[str, list[Present]]]:
        """Those that there are now."""
        rooms: dict[str, tuple[str, list[Present]]] = {}
        for session, names in await self._hub.present():
            for name in names:
                rooms.setdefault(name, (name, []))[1].append(Present(session, names))
        return rooms

    def summarize(self, thing: tuple[str, list[Present]], now: float) -> RoomEntry:
        """One in a line."""
        return RoomEntry(**_room_fields(*thing))

    async def inspect(self, thing: tuple[str, list[Present]], now: float) -> RoomDetails:
        """With everyone in it."""
        members = [_entry(present) for present in thing[1]]
        return RoomDetails(**_room_fields(*thing), members=members)

    async def end(self, thing: tuple[str, list[Present]]) -> None:
        """Remove everyone. :raises ConnectionError: the broker is away."""
        for present in thing[1]:
            await _remove(self._hub, present.session)


async def _remove(hub: Hub, session: Session) -> None:
    try:
        await hub.remove(session)
    except Unavailable as error:
        raise ConnectionError(f"the broker is away: {error}") from None


def _entry(present: Present) -> PeerEntry:
    return PeerEntry(**_fields(present))


def _fields(present: Present) -> dict[str, Any]:
    session = present.session
    return {
        "id": session.record.peer,
        "name": session.record.name,
        "user": session.user,
        "rooms": present.rooms,
        "connected": session.connection is not None,
    }


def _room_fields(name: str, members: list[Present]) -> dict[str, Any]:
    connected = sum(present.session.connection is not None for present in members)
    return {"id": name, "peers": len(members), "connected": connected}
