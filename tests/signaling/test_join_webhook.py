"""Who may come in by the decision of a back end: a real one, which is asked over HTTP."""

import asyncio
import time

import aiohttp
import pytest
from aiohttp import web

from signaling import admission
from signaling.auth import Tokens
from signaling.client import Client, SignalingError
from tests.patience import PATIENCE
from tests.receiver import SECRET, receiver
from tests.signaling.live import signaling, sockets, url


@pytest.fixture
async def back_end():
    async with receiver() as running:
        yield running


def asking(back_end, **settings):
    """A node that asks the back end."""
    return signaling(join_url=back_end.url, webhook_secret=SECRET, **settings)


async def enter(connect, room="r", token="an opaque session id", **hello):
    """Say hello and join; the socket, and what the server answers."""
    one = await connect()
    await one.say(type="hello", token=token, room=room, **hello)
    answer = await one.hear("welcome", "error")
    if answer["type"] == "welcome":
        answer = {**answer, **await one.join(room)}
    return one, answer


async def test_the_back_end_is_asked_and_says_what_a_client_may_do(back_end):
    back_end.says(
        allow=True, sub="user-7", name="Ada of the back end", capacity=1, canPublish=False
    )
    async with asking(back_end) as service, sockets(service) as connect:
        one, joined = await enter(connect, name="Ada")
        assert back_end.got == [
            {"type": "join",
             "data": {"token": "an opaque session id", "room": "r", "name": "Ada"}},
        ]  # fmt: skip
        relay = next(server for server in joined["iceServers"] if "username" in server)
        assert relay["username"].endswith(":user-7")
        await one.say(type="message", id="1", data="x")
        assert (await one.hear("error"))["code"] == "forbidden"
        assert (await one.join("another"))["code"] == "forbidden"
        _, answer = await enter(connect, token="another token")
        assert answer["code"] == "room_full"


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, {"allow": False}), (200, {}), (200, {"allow": "true"}), (200, {"allow": 1}),
     (401, {}), (403, {"allow": True}), (404, {})],
)  # fmt: skip
async def test_whom_it_refuses_stays_out(back_end, status, body):
    back_end.says(status, **body)
    async with asking(back_end) as service, sockets(service) as connect:
        one, answer = await enter(connect)
        assert (answer["code"], answer["retryable"]) == ("unauthorized", False)
        assert await one.closed() == 4503
        assert service.stats.join_decisions == {"refused": 1}


async def hang(_):
    await asyncio.sleep(5)
    return web.Response()


async def pour(_):
    return web.json_response({"allow": True, "x": "x" * 20_000})


async def elsewhere(_):
    return web.Response(status=307, headers={"Location": "http://127.0.0.1:9/"})


async def garbage(_):
    return web.Response(text='["allow"')


async def deep(_):
    return web.Response(text='{"allow":' + "[" * 9000)


async def listed(_):
    return web.json_response([{"allow": True}])


async def wrong_type(_):
    return web.json_response({"allow": True, "capacity": "many"})


async def failing(_):
    return web.Response(status=500, text='{"allow": true}')


def age(service, seconds):
    """Let what is remembered be so much older."""
    answers = service._join_webhook._answers
    for question, (expires, claims) in answers.items():
        answers[question] = (expires - seconds, claims)


@pytest.mark.parametrize(
    "answer", [hang, pour, elsewhere, garbage, deep, listed, wrong_type, failing]
)
async def test_where_it_cannot_decide_nobody_comes_in_and_all_may_come_back(back_end, answer):
    back_end.answer = answer
    async with asking(back_end, webhook_timeout=0.3) as service, sockets(service) as connect:
        one, refused = await enter(connect)
        assert (refused["code"], refused["retryable"]) == ("unavailable", True)
        assert await one.closed() == 4004
        service._poster.timeout = PATIENCE
        back_end.says(allow=True)
        _, joined = await enter(connect)
        assert joined["type"] == "joined"
        assert service.stats.join_decisions == {"failed": 1, "allowed": 1}


async def test_a_back_end_that_is_down_is_said_so(back_end):
    async with (
        signaling(join_url="http://127.0.0.1:9/", webhook_secret=SECRET) as service,
        sockets(service) as connect,
    ):
        _, refused = await enter(connect)
        assert refused["code"] == "unavailable"


async def test_the_same_question_is_asked_once_at_a_time_and_then_remembered(back_end):
    async def slowly(_):
        await asyncio.sleep(0.2)
        return web.json_response({"allow": True})

    back_end.answer = slowly
    async with asking(back_end, join_cache=60) as service, sockets(service) as connect:
        together = await asyncio.gather(*(enter(connect) for _ in range(8)))
        assert {answer["type"] for _, answer in together} == {"joined"}
        await enter(connect)
        assert len(back_end.got) == 1
        await enter(connect, room="another")
        await enter(connect, token="another")
        assert len(back_end.got) == 3
        age(service, 60)
        await enter(connect)
        assert len(back_end.got) == 4


async def test_a_client_that_goes_does_not_end_what_another_waits_for(back_end):
    async def slowly(_):
        await asyncio.sleep(0.3)
        return web.json_response({"allow": True})

    back_end.answer = slowly
    async with asking(back_end) as service, sockets(service) as connect:
        first = await connect()
        await first.say(type="hello", token="t", room="r")
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(enter(connect, token="t"))
        await asyncio.sleep(0.05)
        first.ws._response.connection.transport.abort()
        assert (await second)[1]["type"] == "joined"


async def test_a_refusal_is_not_remembered_for_long(back_end):
    back_end.says(403)
    async with asking(back_end, join_cache=60) as service, sockets(service) as connect:
        await enter(connect)
        await enter(connect)
        assert len(back_end.got) == 1
        back_end.says(allow=True)
        age(service, admission.LONGEST_REFUSAL)
        assert (await enter(connect))[1]["type"] == "joined"


async def test_what_is_remembered_is_bounded(back_end, monkeypatch):
    monkeypatch.setattr(admission, "MOST_REMEMBERED", 3)
    back_end.says(allow=True)
    async with asking(back_end) as service, sockets(service) as connect:
        for number in range(6):
            await enter(connect, token=str(number))
        assert len(service._join_webhook._answers) == 3
        assert service._join_webhook._asking == {}


async def test_the_room_is_the_one_that_was_asked_about_or_that_it_names(back_end):
    back_end.says(allow=True)
    async with asking(back_end, join_cache=0) as service, sockets(service) as connect:
        one = await connect()
        await one.say(type="hello", token="t")  # no room, and none in the answer
        assert (await one.hear())["code"] == "unavailable"
        back_end.says(allow=True, room="theirs")
        _, answer = await enter(connect, room="mine")
        assert answer["code"] == "forbidden"
        two = await connect()
        await two.hello(token="t")
        assert (await two.join("theirs"))["type"] == "joined"
        back_end.says(allow=True, room="*")
        three = await connect()
        await three.hello(token="t")
        for room in ("one", "two"):
            assert (await three.join(room))["type"] == "joined"


async def test_a_client_cannot_ask_for_every_room(back_end):
    """Only the back end's own "*" is every room; a client's is the room of that name."""
    back_end.says(allow=True)
    async with asking(back_end) as service, sockets(service) as connect:
        one, answer = await enter(connect, room="*")
        assert answer["type"] == "joined"
        assert (await one.join("private"))["code"] == "forbidden"


async def test_a_jwt_is_good_without_asking_and_a_forged_one_is_for_the_back_end(back_end):
    back_end.says(403)
    secret = "the secret of the join tokens, 32+"
    async with asking(back_end, token_secret=secret) as service, sockets(service) as connect:
        good = Tokens([secret]).mint({"room": "r", "exp": time.time() + 60})
        assert (await enter(connect, token=good))[1]["type"] == "joined"
        assert back_end.got == []
        assert (await enter(connect, token=good[:-2] + "xx"))[1]["code"] == "unauthorized"
        assert len(back_end.got) == 1
        assert (await enter(connect, token="t" * 4097))[1]["code"] == "unauthorized"
        assert len(back_end.got) == 1


async def test_credentials_are_for_those_whom_it_lets_in(back_end):
    async with asking(back_end) as service, aiohttp.ClientSession() as http:
        for status, body, expected in (
            (403, {}, 401), (500, {}, 503), (200, {"allow": True, "sub": "u"}, 200),
        ):  # fmt: skip
            back_end.says(status, **body)
            headers = {"Authorization": f"Bearer token-{status}"}
            async with http.get(url(service, "/ice?room=r"), headers=headers) as answer:
                assert answer.status == expected
                text = await answer.text()
                assert ("credential" in text) == (expected == 200)


async def test_peerjs_clients_are_asked_about_too(back_end):
    back_end.says(allow=True, room="r")
    async with asking(back_end, peerjs=True) as service, aiohttp.ClientSession() as http:
        for status, expected in ((200, "OPEN"), (403, "ERROR")):
            back_end.says(status, allow=True, room="r")
            query = f"/peerjs?key=peerjs&id=ada&token=t{status}"
            ws = await http.ws_connect(url(service, query))
            assert (await ws.receive_json())["type"] == expected
            await ws.close()
        back_end.says(500)
        ws = await http.ws_connect(url(service, "/peerjs?key=peerjs&id=ada&token=x"))
        await ws.receive()
        assert ws.close_code == 4004


async def test_the_python_client_says_which_room_it_is_for(back_end):
    back_end.says(allow=True)
    async with asking(back_end) as service:
        address = url(service, "/ws", "ws")
        async with Client(address, token="t", room="r") as one:
            await one.join("r")
            with pytest.raises(SignalingError, match="not for this room"):
                await one.join("other")
    assert back_end.got[0]["data"]["room"] == "r"


async def test_who_asks_with_many_tokens_at_once_keeps_no_other_waiting(back_end):
    """A back end answers so many at a time: one address must not be all of them."""
    back_end.answer = hang
    async with asking(back_end, peerjs=True, peerjs_discovery=True) as service:

        async def ask(number, source="127.0.0.1"):
            connector = aiohttp.TCPConnector(local_addr=(source, 0))
            async with aiohttp.ClientSession(connector=connector) as http:
                path = ("/ice?room=r&", "/peerjs/peerjs/peers?")[number % 2]
                async with http.get(url(service, f"{path}token=t{number}")) as answer:
                    return answer.status

        waiting = [asyncio.create_task(ask(number)) for number in range(20)]
        while len(back_end.got) < 20:  # noqa: ASYNC110 - asked as it is
            await asyncio.sleep(0.01)
        assert [await ask(number) for number in (20, 21)] == [429, 429]
        back_end.says(allow=True)
        assert await ask(22, "127.0.0.2") == 200
        for task in waiting:
            assert await task == 503
        assert await ask(24) == 200
