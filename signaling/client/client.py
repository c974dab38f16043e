"""What an application has: requests that are answered, and events that come once and in order.

A request is sent again, with the same id, until it is answered; a socket that is lost is opened
anew and the session goes on, or ``restarted`` says that it could not and what to do (restart ICE
with each peer).
"""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from signaling.client.connection import Connection
from signaling.client.rooms import BeforeRejoin, Rooms
from signaling.client.token import Token


class Client:
    """A signaling session. Use it as ``async with Client(url) as client``.

    Messages are dictionaries as the protocol has them. Besides the server's events,
    ``events()`` gives ``{"type": "resumed"}`` after a reconnect that lost nothing, and
    ``{"type": "restarted"}`` after one that began a new session: rooms were joined again, and
    ICE is to be restarted with each peer of the new ``joined``. Whoever does not read ``events()``
    as fast as they come finds ``{"type": "lost", "count": N}`` in the place of those that came
    while 1,024 (or 8 MiB) waited: ``join`` the room again to hear who is there now.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        name: str = "",
        room: str = "",
        ssl: Any = True,
        before_rejoin: BeforeRejoin | None = None,
    ) -> None:
        """Prepare to connect.

        :param url: ``ws://…/ws`` or ``wss://…/ws``.
        :param token: a join token, or a function that gets one; it is called for each connection.
            A text is enough for as long as it is good: once it has expired and the session is lost
            (the server was started anew, we were away for too long), ``events()`` raises
            ``refused``.
        :param room: that will be joined; needed where a back end decides who may.
        :param ssl: as aiohttp takes it: an ``ssl.SSLContext``, or True for the usual checks.
        :param before_rejoin: called with our new peer id after a lost session, before the others
            hear of it as of a newcomer's: connections that live may tell it to their other ends
            (PROTOCOL.md, "Between two clients"), and go on with restarted ICE.
        """
        self._rooms = Rooms(before_rejoin)
        hello = {"type": "hello", "name": name, "room": room}
        self._connection = Connection(url, ssl, token, hello, self._rooms)

    @property
    def peer(self) -> str:
        """The client's own peer id."""
        return self._connection.peer

    # Life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Connect, however long it takes; bound it by ``asyncio.timeout``, if it is not to.

        :raises SignalingError: the server refuses us for good.
        """
        await self._connection.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave for good: the others see ``leave`` at once."""
        await self.close()

    async def close(self) -> None:
        """Leave for good."""
        await self._connection.close()

    async def drop(self) -> None:
        """Lose the socket, as a change of network would; the client comes back by itself."""
        await self._connection.drop()

    # Requests ------------------------------------------------------------------------------

    async def join(self, room: str, meta: Any = None) -> dict[str, Any]:
        """Enter a room; gives ``joined``: the peers, and ICE servers. :raises SignalingError:"""
        joined = await self._connection.request({"type": "join", "room": room, "meta": meta})
        self._rooms.remember(room, meta)
        return joined

    async def leave(self, room: str) -> None:
        """Leave a room. :raises SignalingError:"""
        self._rooms.forget(room)
        await self._connection.request({"type": "leave", "room": room})

    async def signal(self, to: str, **payload: Any) -> str:
        """Send ``description=``, ``candidate=`` or ``candidates=`` to a peer.

        :returns: ``delivered``, or ``queued`` where its socket is lost and it may come back.
        :raises SignalingError: it was not, and will not be, delivered.
        """
        answer = await self._request_of_member({"type": "signal", "to": to, **payload})
        return str(answer["status"])

    async def message(self, data: Any, to: str | None = None) -> str:
        """Send application data to a peer, or to everyone in our rooms; as ``signal``."""
        frame = {"type": "message", "data": data} | ({"to": to} if to else {})
        return str((await self._request_of_member(frame))["status"])

    async def ice_servers(self) -> dict[str, Any]:
        """Fresh ICE servers: ``iceServers`` and ``expiresAt``. :raises SignalingError:"""
        return await self._connection.request({"type": "ice"})

    async def bye(self, to: str | None = None) -> None:
        """Tell a peer, or all, that the call is over; nothing where there is no connection."""
        await self._connection.notify({"type": "bye"} | ({"to": to} if to else {}))

    async def stats(self, peer: str, path: str, rtt: float) -> None:
        """Report which path a call takes (host, srflx, prflx, relay) and its round trip."""
        await self._connection.notify({"type": "stats", "peer": peer, "path": path, "rtt": rtt})

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The server's events, each once and in order, until ``close``.

        :raises SignalingError: ``refused``, where the server does not want us back.
        """
        while True:
            event = await self._rooms.unread.get()
            if event is None:
                failure = self._connection.failure
                if failure is not None and failure.code != "closed":
                    raise failure
                return
            yield event

    async def _request_of_member(self, frame: dict[str, Any]) -> dict[str, Any]:
        """One that has to be sent from within our rooms."""
        await self._rooms.wait()
        return await self._connection.request(frame)
