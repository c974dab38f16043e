"""Who is in the rooms of this node's sessions, as those were told: what it knows without Redis."""

from collections.abc import Iterable

import msgspec

NEWS = (b'{"type":"peer","event":"join",', b'{"type":"peer","event":"leave",')
"""What the events begin with that change a room, as ``common.lua`` writes them."""


class _News(msgspec.Struct):
    event: str
    room: str
    id: str


_news_decoder = msgspec.json.Decoder(_News)


class _Roster:
    __slots__ = ("here", "peers")

    def __init__(self) -> None:
        self.here = 0
        """Sessions of this node in it."""
        self.peers: set[str] = set()


class Rosters:
    """Of one node; quiet members are in none."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Roster] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def enter(self, room: str, peers: Iterable[str]) -> None:
        """A session of this node is in a room from now on. :param peers: all who are, with it."""
        roster = self._rooms.setdefault(room, _Roster())
        roster.here += 1
        roster.peers.update(peers)

    def leave(self, rooms: Iterable[str]) -> None:
        """A session is in these rooms no more, or no more at this node: the others hear which."""
        for room in rooms:
            roster = self._rooms.get(room)
            if roster is None:
                continue
            roster.here -= 1
            if not roster.here:
                del self._rooms[room]

    def hear(self, frame: bytes) -> None:
        """An event is handed to a session of this node."""
        if frame.startswith(NEWS):
            news = _news_decoder.decode(frame)
            roster = self._rooms.get(news.room)
            if roster is None:
                return
            if news.event == "join":
                roster.peers.add(news.id)
            else:
                roster.peers.discard(news.id)

    def others(self, rooms: Iterable[str], peer: str) -> set[str]:
        """All who share one of these rooms with a peer, without it."""
        found = {other for room in rooms for other in self._rooms[room].peers}
        found.discard(peer)
        return found
