"""Two peers meet in a room, as those of a call do: what ``icebroker doctor`` tries last."""

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from jwt.exceptions import InvalidTokenError

from signaling.client import Client, SignalingError

PATIENCE = 8.0
"""Seconds for all of it."""
NAME = "icebroker doctor"


class NotLetIn(Exception):
    """The server works, and has reasons of its own: the text says which."""


def room_of(token: str) -> str:
    """The room that a token is for; a new one where it does not say, or there is no token."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except InvalidTokenError:
        claims = {}  # a back end's own kind of token
    named = claims.get("room")
    return named if isinstance(named, str) and named else f"icebroker-doctor-{secrets.token_hex(8)}"


async def meet(url: str, token: str, tls: ssl.SSLContext) -> None:
    """Have two peers enter a room, and one hear from the other.

    :param url: of the WebSocket, ``wss://…/ws``.
    :raises NotLetIn: this token does not open that much.
    :raises SignalingError: refused, or broken off. :raises TimeoutError: it took too long.
    """
    room = room_of(token)
    async with (
        asyncio.timeout(PATIENCE),
        _peer(url, token, room, tls) as one,
        _peer(url, token, room, tls) as other,
    ):
        word = secrets.token_hex(8)
        try:
            await one.join(room)
            await other.join(room)
            await one.message(word, to=other.peer)
        except SignalingError as error:
            if error.code in {"forbidden", "room_full"}:
                raise NotLetIn(str(error)) from None
            raise
        async for event in other.events():
            if event.get("type") == "message" and event.get("data") == word:
                return


@asynccontextmanager
async def _peer(url: str, token: str, room: str, tls: Any) -> AsyncIterator[Client]:
    client = Client(url, token=token or None, name=NAME, room=room, ssl=tls)
    async with client:
        yield client
