"""The Python client against a server that follows a script: what real ones do in rare moments."""

import asyncio
import json
from typing import Any

import pytest

from signaling.client import Client, SignalingError
from signaling.client.token import Token
from tests.patience import PATIENCE, until
from tests.signaling.scripted import (
    Socket,
    begins,
    hears_nothing,
    is_replaced,
    serving,
    takes_no_token,
    welcome,
)


async def test_what_was_given_up_with_its_session_is_not_sent_in_the_next_one():
    """It was to be tried again a little later, when the session was lost and its caller told so."""
    heard: list[Any] = []

    async def refuses(ws: Socket) -> None:
        await welcome(ws, "one")
        asked = await ws.receive_json()
        await ws.send_json(
            {"type": "error", "id": asked["id"], "code": "unavailable", "message": "",
             "retryable": True}
        )  # fmt: skip
        await ws.close(code=4003)

    async def takes(ws: Socket) -> None:
        await welcome(ws, "two")
        async for frame in ws:
            message = json.loads(frame.data)
            heard.append(message.get("data"))
            await ws.send_json({"type": "ok", "id": message["id"], "status": "delivered"})

    async with serving(refuses, takes) as address, Client(address) as client:
        with pytest.raises(SignalingError) as lost:
            await client.message("first")
        assert lost.value.code == "session_lost"
        await client.message("second")
        await until(lambda: not client._connection._tasks)  # whatever was to be sent later has been
        await client.message("third")
        assert heard == ["second", "third"]


async def test_a_jump_is_acknowledged_and_nobody_is_told():
    acknowledged: list[Any] = []

    async def jumps(ws: Socket) -> None:
        await welcome(ws, "one")
        await ws.send_json({"type": "jump", "seq": 1_000_000})
        acknowledged.append(await ws.receive_json())
        await ws.send_json({"type": "message", "from": "x", "data": 1, "seq": 1_000_001})
        await ws.receive()

    async with serving(jumps) as address, Client(address) as client:
        async for event in client.events():
            assert event["type"] == "message"
            break
    assert acknowledged == [{"type": "ack", "seq": 1_000_000}]


async def test_what_nobody_waits_for_any_more_is_not_sent_again():
    heard: list[Any] = []

    async def refuses(ws: Socket) -> None:
        await welcome(ws, "one")
        async for frame in ws:
            message = json.loads(frame.data)
            heard.append(message.get("data"))
            if message["data"] == "first":
                await ws.send_json(
                    {"type": "error", "id": message["id"], "code": "unavailable", "message": "",
                     "retryable": True}
                )  # fmt: skip
            else:
                await ws.send_json({"type": "ok", "id": message["id"], "status": "delivered"})

    async with serving(refuses) as address, Client(address) as client:
        asked = asyncio.ensure_future(client.message("first"))
        await until(lambda: client._connection._tasks)  # it was refused, and is to be tried again
        asked.cancel()
        await client.message("second")
        await until(lambda: not client._connection._tasks)
        await client.message("third")
        assert heard == ["first", "second", "third"]


ROOM = {"type": "joined", "room": "r", "iceServers": [], "iceExpiresAt": ""}


def peer(event: str, name: str) -> dict[str, Any]:
    """What became of somebody."""
    return {"type": "peer", "event": event, "room": "r", "id": name, "name": name, "meta": None,
            "polite": True, "reason": ""}  # fmt: skip


async def loses_the_session(ws: Socket) -> None:
    """A session in which a room is joined, and its end."""
    await welcome(ws, "one")
    await ws.send_json({**ROOM, "id": (await ws.receive_json())["id"], "peers": []})
    await ws.close(code=4003)


async def test_what_comes_after_the_new_roster_is_told_after_it():
    """Else an application that goes by the roster would keep who left at once, for ever."""

    async def says_much_at_once(ws: Socket) -> None:
        await welcome(ws, "two")
        asked = await ws.receive_json()
        await ws.send_json({**ROOM, "id": asked["id"], "peers": [{"id": "bob"}]})
        await ws.send_json(peer("leave", "bob"))
        await ws.send_json(peer("join", "eve"))
        async for _ in ws:
            pass

    async with serving(loses_the_session, says_much_at_once) as address, Client(address) as client:
        await client.join("r")
        events = client.events()
        first = await anext(events)
        assert first["type"] == "restarted"
        assert first["joined"][0]["peers"] == [{"id": "bob"}]
        heard = [await anext(events) for _ in range(2)]
        assert [(each["event"], each["id"]) for each in heard] == [
            ("leave", "bob"),
            ("join", "eve"),
        ]


async def test_what_is_sent_in_a_new_session_waits_until_its_rooms_are_joined():
    """Else a message to all would be answered, and reach nobody."""
    joining, go = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def joins_late(ws: Socket) -> None:
        await welcome(ws, "two")
        asked = await ws.receive_json()
        joining.set()

        async def answer() -> None:
            await go.wait()
            order.append("joined")
            await ws.send_json({**ROOM, "id": asked["id"], "peers": []})

        answering = asyncio.ensure_future(answer())
        async for frame in ws:
            message = json.loads(frame.data)
            order.append(message["data"])
            await ws.send_json({"type": "ok", "id": message["id"], "status": "delivered"})
        await answering

    async with serving(loses_the_session, joins_late) as address, Client(address) as client:
        await client.join("r")
        await asyncio.wait_for(joining.wait(), PATIENCE)
        saying = asyncio.ensure_future(client.message("hello"))
        await asyncio.wait({saying}, timeout=0.2)  # it would be answered by now
        go.set()
        assert await saying == "delivered"
        assert order == ["joined", "hello"]


async def not_good() -> str:
    """What an application's function gets."""
    return "not good"


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("once good", "had taken before: give a function that gets fresh ones"),
        (not_good, "did not take the token \\(4503\\)$"),
    ],
    ids=["a text", "a function"],
)
async def test_a_token_that_was_good_once_may_have_expired(token: Token, words: str):
    """A session goes on without it; where that is lost, another one has to begin."""
    async with (
        serving(begins, takes_no_token) as address,
        Client(address, token=token) as client,
    ):
        with pytest.raises(SignalingError, match=words) as refused:
            async for _ in client.events():
                pass
        assert refused.value.code == "refused"


async def test_a_hello_of_its_own_that_is_heard_late_does_not_end_it():
    """A node that slept takes the session over, for a socket that the client gave up long ago."""

    async def goes_on(ws: Socket) -> None:
        await welcome(ws, "one", resumed=True)
        async for frame in ws:
            answer = {"type": "ok", "id": json.loads(frame.data)["id"], "status": "delivered"}
            await ws.send_json(answer)

    async with (
        serving(begins, hears_nothing, is_replaced, goes_on) as address,
        Client(address) as client,
    ):
        assert await client.message("still here") == "delivered"

    async with serving(begins, is_replaced) as address, Client(address) as client:
        with pytest.raises(SignalingError) as refused:  # by somebody else
            async for _ in client.events():
                pass
        assert refused.value.code == "refused"
