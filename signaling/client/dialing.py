"""One WebSocket of the client's, from its dial to its close code."""

import asyncio
import contextlib
import json
import socket
from typing import Any, Self

import aiohttp

from signaling.protocol import SUBPROTOCOL

HEARTBEAT = 25
"""Seconds without a frame after which the server is asked for a sign of life."""
LEAVE, COME_BACK = 1000, 4000
"""Close codes: the server ends our session, or keeps it for a resume."""
REPLACED = 4501
"""Close code: the session goes on over another socket."""
UNAUTHORIZED = 4503
"""Close code: the token is not good, or an operator has revoked the user."""
LOST = 1006
"""What a socket that ended without a close code has in its place (RFC 6455 §7.1.5)."""


def is_final(code: int) -> bool:
    """Whether a server that closes so does not want us back."""
    return 3500 <= code <= 3999 or 4500 <= code <= 4999


class Socket:
    """What arrives, as text frames: ``async for text in socket``."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Of an open WebSocket."""
        self._ws = ws
        connection = ws._response.connection  # noqa: SLF001 - aiohttp shows it nowhere else
        self._transport = connection.transport if connection is not None else None
        self._socket = self._transport.get_extra_info("socket") if self._transport else None

    @classmethod
    async def dial(cls, http: aiohttp.ClientSession, url: str, tls: Any) -> Self:
        """Open one. :raises aiohttp.ClientError, OSError:"""
        ws = await http.ws_connect(
            url, protocols=(SUBPROTOCOL,), ssl=tls, heartbeat=HEARTBEAT, max_msg_size=0
        )
        return cls(ws)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        async for frame in self._ws:
            if frame.type is aiohttp.WSMsgType.TEXT:
                return str(frame.data)
        raise StopAsyncIteration

    async def send(self, message: dict[str, Any]) -> None:
        """Write a message. :raises aiohttp.ClientError, ConnectionError: it is lost."""
        await self._ws.send_str(json.dumps(message))

    async def close(self, code: int) -> None:
        """Say goodbye."""
        await self._ws.close(code=code)

    async def end(self, code: int) -> int:
        """Say goodbye, if nobody has, and let go of it at once.

        :returns: the close code, ours or the server's.
        """
        await self._ws.close(code=code)
        if self._transport is not None:
            _abort(self._transport, self._socket)
        return self._ws.close_code or LOST


def _abort(transport: asyncio.Transport, sock: Any) -> None:
    """Close at once: nobody waits for TLS to end, and a loop that stops would leave it open."""
    try:
        transport.abort()
    except AttributeError:
        # CPython 3.11.2 (Debian 12): a second close makes a TLS transport forget what abort needs.
        # Its loop hears of the end from the socket.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
