"""A relay that asks a back end who its clients are, and a back end that can be told what to say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.receiver import SECRET, Receiver
from tests.turn.live import UDP, Client, relay
from turn.codec import registry
from turn.codec.message import Message, parse_untrusted
from turn.codec.registry import Method
from turn.server import TurnService


def asking(back_end: Receiver, **changes: Any) -> dict[str, Any]:
    """Settings of a relay that knows nobody by itself."""
    return {
        "users": {}, "user_url": back_end.url, "webhook_secret": [SECRET], "user_cache": 60,
    } | changes  # fmt: skip


@asynccontextmanager
async def asking_relay(back_end: Receiver, **changes: Any) -> AsyncIterator[TurnService]:
    """A running one."""
    async with relay(**asking(back_end, **changes)) as service:
        yield service


def knows(back_end: Receiver, **passwords: str) -> None:
    """Let the back end know these users from now on, and no others."""

    async def answer(message: dict[str, Any]) -> web.Response:
        password = passwords.get(message["data"]["user"])
        if password is None:
            return web.Response(status=404)
        return web.json_response({"password": password})

    back_end.answer = answer


def hangs(back_end: Receiver) -> asyncio.Event:
    """Let the back end be silent, until the event is set: then it knows alice."""
    go_on = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.Response:
        await go_on.wait()
        return web.json_response({"password": "pw"})

    back_end.answer = answer
    return go_on


def asked(back_end: Receiver) -> list[str]:
    """Whom it was asked about."""
    return [message["data"]["user"] for message in back_end.got if message["type"] == "user"]


async def allocate(client: Client) -> int:
    """The code of the reply to an Allocate; 0: a success."""
    return code_of(await client.request(Method.ALLOCATE, UDP))


async def challenged(client: Client) -> Client:
    """A client that has a nonce."""
    await client.send(client.encode(Method.ALLOCATE, UDP))
    client.nonce = parse_untrusted(await client.receive()).get(registry.NONCE)
    return client


def code_of(reply: Message) -> int:
    """The error code of a reply; 0: a success."""
    return (reply.get(registry.ERROR_CODE) or (0, ""))[0]
