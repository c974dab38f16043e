"""Who one is and whom one can reach: forged senders and tokens, rooms and peers to be guessed."""

import json
import time

import aiohttp
import jwt
import pytest

from tests.signaling.live import signaling, sockets, url
from tests.threats.forged import FORGED, SECRET

CLAIMS = [
    {"type": "signal", "description": {"type": "offer"}},
    {"type": "signal", "candidate": None},
    {"type": "message", "data": 1},
    {"type": "bye"},
]


def token(room):
    return jwt.encode({"room": room, "exp": int(time.time()) + 60}, SECRET, "HS256")


async def in_room(connect, room="r", **hello):
    """A socket in a room; gives it and its peer id."""
    one = await connect()
    welcome = await one.hello(**hello)
    await one.join(room)
    return one, welcome["peer"]


def kind_of(claim):
    return "-".join(list(claim)[:2])


@pytest.mark.parametrize("field", ["from", "sender", "peer", "session", "name", "id", "seq"])
@pytest.mark.parametrize("claim", CLAIMS, ids=kind_of)
async def test_nobody_speaks_in_anothers_name(claim, field):
    """Spoofing: whatever a client says of its sender, the others hear what the server knows."""
    async with signaling() as service, sockets(service) as connect:
        victim, name = await in_room(connect)
        mallory, true_name = await in_room(connect)
        target, to = await in_room(connect)
        await mallory.say(**{"id": "1", "to": to, **claim, field: name})
        await mallory.say(type="message", id="2", to=to, data="the end")
        heard = [await target.hear("message", "signal", "bye")]
        if heard[0].get("data") != "the end":
            heard.append(await target.hear("message"))
        assert {message["from"] for message in heard} == {true_name}
        assert name not in json.dumps(heard)
        await victim.say(type="message", id="1", to=to, data="genuine")
        assert (await target.hear("message"))["from"] == name


@pytest.mark.parametrize("claim", CLAIMS[:3], ids=kind_of)
async def test_a_sender_that_a_client_writes_is_refused_aloud(claim):
    """Who forges by mistake learns of it; nothing is passed on."""
    async with signaling() as service, sockets(service) as connect:
        one, _ = await in_room(connect)
        target, to = await in_room(connect)
        await one.say(**{"id": "1", "to": to, "from": to, **claim})
        assert (await one.hear("error"))["code"] == "bad_message"
        await one.say(type="bye", to=to)
        assert (await target.hear())["type"] == "bye"


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
async def test_a_forged_token_opens_nothing_and_every_one_gets_the_same_answer(forged):
    """An error that tells expired from forged would help a forger."""
    async with signaling(token_secret=SECRET) as service, sockets(service) as connect:
        one = await connect()
        await one.say(type="hello", token=forged)
        assert await one.hear() == {
            "type": "error",
            "code": "unauthorized",
            "message": "the join token is not good",
            "retryable": False,
        }
        assert await one.closed() == 4503
        async with (
            aiohttp.ClientSession() as http,
            http.get(url(service, "/ice"), headers={"Authorization": f"Bearer {forged}"}) as answer,
        ):
            assert answer.status == 401
            assert json.loads(await answer.text()) == {"error": "unauthorized"}


async def test_a_token_is_good_for_its_room_and_a_foreign_room_looks_like_none():
    """Enumeration: whether a room exists is not to be had from the answer."""
    async with signaling(token_secret=SECRET) as service, sockets(service) as connect:
        await in_room(connect, "busy", token=token("busy"))
        one = await connect()
        await one.hello(token=token("r"))
        answers = [await one.join(room) for room in ("busy", "empty")]
        for answer in answers:
            del answer["id"]
        assert answers[0] == answers[1]
        assert answers[0]["code"] == "forbidden"


async def test_a_peer_elsewhere_and_a_peer_that_never_was_look_alike():
    """Enumeration: peers are found by their rooms, never by trying ids."""
    async with signaling() as service, sockets(service) as connect:
        _, elsewhere = await in_room(connect, "secret room")
        one, _ = await in_room(connect)
        answers = []
        for to in (elsewhere, "nobody"):
            await one.say(type="signal", id="1", to=to, candidate=None)
            answers.append(await one.hear("error"))
            await one.say(type="leave", id="1", room="secret room")
            answers.append(await one.hear("error"))
        assert answers[0] == answers[2]
        assert {answer["code"] for answer in answers} == {"not_found"}


async def test_ids_cannot_be_guessed():
    """128 bits each, no two alike, and none that follows from another."""
    async with signaling() as service, sockets(service) as connect:
        welcomes = [await (await connect()).hello() for _ in range(20)]
        for kind, least in (("peer", 22), ("session", 22), ("secret", 32)):
            ids = {welcome[kind] for welcome in welcomes}
            assert len(ids) == 20
            assert all(len(found) >= least for found in ids)  # 22 letters of base64: 128 bits


async def test_a_session_is_not_taken_over_without_its_secret():
    """Peers know each other's ids; what they must not get is each other's socket."""
    async with signaling() as service, sockets(service) as connect:
        victim = await connect()
        welcome = await victim.hello()
        await victim.join("r")
        for secret in ("", "x" * 32, welcome["session"], welcome["peer"], welcome["secret"][:-1]):
            thief = await connect()
            resume = {"session": welcome["session"], "secret": secret, "seq": 0}
            assert (await thief.hello(resume=resume))["resumed"] is False
        await victim.say(type="ping", t=1)
        assert (await victim.hear("pong"))["t"] == 1
