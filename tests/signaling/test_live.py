"""The service with real sockets: conversations, errors, limits, and lost connections."""

import asyncio
import json
import logging
import time
from functools import partial
from typing import Any

import aiohttp
import jwt
import pytest

from signaling.client import Client, SignalingError
from signaling.client.unread import Unread
from tests.patience import PATIENCE, until
from tests.redis_server import redis_server
from tests.signaling.live import default_broker, on, signaling, sockets, url

TOKEN_SECRET = "the secret of the join tokens, 32+"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One Redis for all tests of this file."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["memory", "redis"], autouse=True)
def broker(request):
    """Every test over both brokers."""
    if request.param == "memory":
        yield
    else:
        kept = default_broker.set(on(request.getfixturevalue("server")))
        yield
        default_broker.reset(kept)


def token(room="r", **claims):
    return jwt.encode({"room": room, "exp": int(time.time()) + 60, **claims}, TOKEN_SECRET, "HS256")


async def pair(connect):
    """Two sockets in one room; gives both and their peer ids."""
    one, two = await connect(), await connect()
    first, second = await one.hello(name="Ada"), await two.hello(name="Bob")
    await one.join("r")
    await two.join("r")
    await one.hear("peer")
    return one, two, first, second


async def until_data(events, last):
    """The data of each message, up to the last one."""
    async for event in events:
        if event["type"] == "message":
            yield event["data"]
            if event["data"] == last:
                return


class TestConversation:
    async def test_a_call_is_set_up(self):
        async with signaling() as service, sockets(service) as connect:
            one, two = await connect(), await connect()
            first = await one.hello(name="Ada")
            assert first["resumed"] is False
            assert first["heartbeat"] == 25
            await two.hello(name="Bob")
            assert (await one.join("r"))["peers"] == []
            joined = await two.join("r")
            assert [(p["name"], p["polite"], p["state"]) for p in joined["peers"]] == [
                ("Ada", False, "present")
            ]
            assert joined["iceServers"][1]["username"]
            event = await one.hear()
            assert (event["event"], event["name"], event["polite"]) == ("join", "Bob", True)
            await two.say(type="signal", id="1", to=first["peer"], description={"type": "offer"})
            assert await two.hear() == {"type": "ok", "id": "1", "status": "delivered"}
            signal = await one.hear()
            assert signal["from"] == event["id"]
            assert signal["description"] == {"type": "offer"}
            await two.say(type="bye")
            assert (await one.hear())["type"] == "bye"

    async def test_what_a_peer_says_of_itself_is_passed_on_as_it_came(self):
        async with signaling() as service, sockets(service) as connect:
            one, two, first, _ = await pair(connect)
            deep: object = "deep"
            for _ in range(90):  # the protocol allows a hundred levels, the frame counted
                deep = [deep]
            for number, meta in enumerate(({"mood": "\u00fc"}, deep)):
                await one.say(type="join", id=str(number), room="r", meta=meta)
                assert (await one.hear("joined"))["id"] == str(number)
                update = await two.hear("peer")
                assert (update["event"], update["id"]) == ("update", first["peer"])
                assert update["meta"] == meta

    async def test_leaving_by_closing_is_told_at_once(self):
        async with signaling() as service, sockets(service) as connect:
            one, two, _, second = await pair(connect)
            await two.ws.close(code=1000)
            event = await one.hear("peer")
            assert (event["event"], event["id"], event["reason"]) == (
                "leave",
                second["peer"],
                "left",
            )

    async def test_everyone_hears_a_message_to_the_room(self):
        async with signaling() as service, sockets(service) as connect:
            one, two, _, second = await pair(connect)
            await two.say(type="message", id="1", data={"text": "hi"})
            message = await one.hear("message")
            assert (message["from"], message["data"]) == (second["peer"], {"text": "hi"})

    async def test_ping_ice_and_stats(self):
        async with signaling() as service, sockets(service) as connect:
            one = await connect()
            await one.hello()
            await one.say(type="ping", t=4.5)
            assert await one.hear() == {"type": "pong", "t": 4.5}
            await one.say(type="ice", id="i")
            assert (await one.hear())["iceServers"][0]["urls"] == ["stun:127.0.0.1:3478"]
            await one.say(type="stats", peer="p", path="relay", rtt=0.1)
            await one.say(type="stats", peer="p", path="carrier pigeon", rtt=9)
            assert (await one.hear())["code"] == "bad_message"

    async def test_ice_servers_are_pushed_before_they_expire(self, monkeypatch):
        async with signaling(ice_ttl=60) as service, sockets(service) as connect:
            one = await connect()
            await one.hello()
            before = (await one.join("r"))["iceExpiresAt"]
            real = time.time
            monkeypatch.setattr(time, "time", lambda: real() + 37)
            assert (await one.hear("ice"))["expiresAt"] > before


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "code", "request_id"),
        [
            ("nonsense", "bad_message", None),
            ('{"type":"dance","id":"7"}', "unknown_type", "7"),
            ('{"type":"join","id":"7"}', "bad_message", "7"),
            ('{"type":"hello"}', "bad_message", None),
            ('{"type":"leave","id":"7","room":"nowhere"}', "not_found", "7"),
            ('{"type":"signal","id":"7","to":"nobody","candidate":null}', "not_found", "7"),
            ('{"type":"message","id":"7","data":1,"from":"me"}', "bad_message", "7"),
        ],
    )
    async def test_a_bad_message_gets_an_error_and_the_socket_lives(self, text, code, request_id):
        async with signaling() as service, sockets(service) as connect:
            one = await connect()
            await one.hello()
            await one.ws.send_str(text)
            error = await one.hear()
            assert (error["type"], error["code"], error.get("id")) == ("error", code, request_id)
            await one.say(type="ping", t=1)
            assert (await one.hear())["type"] == "pong"

    async def test_hello_comes_first(self):
        async with signaling() as service, sockets(service) as connect:
            one = await connect()
            await one.say(type="join", id="1", room="r")
            assert (await one.hear())["code"] == "hello_first"
            await one.hello()

    async def test_binary_frames_end_the_socket(self):
        async with signaling() as service, sockets(service) as connect:
            one = await connect()
            await one.hello()
            await one.ws.send_bytes(b"x")
            assert await one.closed() == 4506

    async def test_a_frame_that_is_too_long_ends_the_socket(self):
        async with signaling(max_message_bytes=2000) as service, sockets(service) as connect:
            one = await connect()
            await one.hello()
            await one.say(type="message", id="1", data="x" * 3000)
            assert await one.closed() == 1009

    async def test_a_socket_that_says_no_hello_is_closed(self):
        async with signaling(hello_timeout=0.1) as service, sockets(service) as connect:
            assert await (await connect()).closed() == 4502

    async def test_a_full_room_and_too_many_rooms(self):
        async with (
            signaling(room_capacity=1, max_rooms_per_session=2) as service,
            sockets(service) as connect,
        ):
            one, two = await connect(), await connect()
            await one.hello()
            await two.hello()
            await one.join("r")
            assert (await two.join("r"))["code"] == "room_full"
            await one.join("s")
            assert (await one.join("t"))["code"] == "too_many_rooms"


class TestLimits:
    async def test_a_flood_gets_errors_and_then_the_door(self):
        async with signaling() as service, sockets(service) as connect:
            one = await connect()
            await one.hello()
            began = time.monotonic()
            for number in range(150):
                await one.say(type="ping", t=number)
            answers = [(await one.hear())["type"] for _ in range(150)]
            allowed = 100 + 50 * (time.monotonic() - began) + 1
            assert 100 <= answers.count("pong") <= allowed
            assert answers.count("error") == 150 - answers.count("pong")
            for number in range(700):
                await one.say(type="ping", t=number)
            assert await one.closed() == 4504

    async def test_silent_sockets_of_one_address_are_bounded(self):
        async with (
            signaling(max_unauthenticated_per_address=3) as service,
            sockets(service) as connect,
        ):
            silent = [await connect() for _ in range(3)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect()
            assert refused.value.status == 429
            await silent[0].hello()
            await connect()

    async def test_a_reader_that_stalls_is_cut_and_harms_nobody(self):
        async with (
            signaling(max_messages_per_second=10_000, max_message_burst=10_000) as service,
            sockets(service) as connect,
        ):
            one, two, first, second = await pair(connect)
            stalled = two.ws._response.connection.transport
            stalled.pause_reading()
            data = "x" * 30_000
            codes = set()
            for number in range(300):
                await one.say(type="message", id=str(number), to=second["peer"], data=data)
                codes.add((await one.hear("ok", "error")).get("code"))
            assert "queue_full" in codes
            await one.say(type="ping", t=1)
            assert (await one.hear("pong"))["t"] == 1
            assert first["peer"]

    async def test_draining_sends_clients_away_and_takes_no_new_ones(self):
        async with signaling() as service, sockets(service) as connect:
            one = await connect()
            await one.hello()
            drain = asyncio.create_task(service.drain(5))
            goaway = await one.hear("goaway")
            assert 0 < goaway["deadline"] < 5
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect()
            assert refused.value.status == 503
            assert "Retry-After" in (refused.value.headers or {})
            assert service.ready() == ["draining"]
            await one.ws.close()
            await drain


class TestResume:
    async def test_a_session_goes_on_over_a_new_socket(self):
        async with signaling() as service, sockets(service) as connect:
            one, two, first, second = await pair(connect)
            seen = {"session": second["session"], "secret": second["secret"], "seq": 0}
            two.ws._response.connection.transport.abort()
            assert (await one.hear("peer"))["event"] == "suspended"
            await one.say(type="signal", id="1", to=second["peer"], candidate=None)
            assert (await one.hear("ok"))["status"] == "queued"
            again = await connect()
            welcome = await again.hello(resume=seen)
            assert (welcome["resumed"], welcome["peer"]) == (True, second["peer"])
            missed = await again.hear("signal")
            assert (missed["from"], missed["seq"]) == (first["peer"], 1)
            assert (await one.hear("peer"))["event"] == "resumed"

    async def test_a_mailbox_that_is_full_to_the_brim_is_had_on_return(self):
        limits: dict[str, Any] = {"max_queued_messages": 4, "max_queued_bytes": 4096}
        async with signaling(**limits) as service, sockets(service) as connect:
            one, two, _, second = await pair(connect)
            seen = {"session": second["session"], "secret": second["secret"], "seq": 0}
            two.ws._response.connection.transport.abort()
            await one.hear("peer")
            answers = []
            for number in range(5):
                await one.say(type="message", id=str(number), to=second["peer"], data=number)
                answers.append(await one.hear("ok", "error"))
            assert answers[-1]["code"] == "queue_full"
            again = await connect()
            assert (await again.hello(resume=seen))["resumed"] is True
            assert [(await again.hear("message"))["data"] for _ in range(4)] == [0, 1, 2, 3]

    async def test_a_newer_socket_takes_the_place_of_the_old_one(self):
        async with signaling() as service, sockets(service) as connect:
            one, two, _, second = await pair(connect)
            seen = {"session": second["session"], "secret": second["secret"], "seq": 0}
            again = await connect()
            assert (await again.hello(resume=seen))["resumed"] is True
            assert await two.closed() == 4501
            await one.say(type="message", id="1", data="to the new one")
            assert (await again.hear("message"))["data"] == "to the new one"

    async def test_a_wrong_secret_begins_a_new_session(self):
        async with signaling() as service, sockets(service) as connect:
            _, _, _, second = await pair(connect)
            wrong = {"session": second["session"], "secret": "guessed", "seq": 0}
            welcome = await (await connect()).hello(resume=wrong)
            assert welcome["resumed"] is False
            assert welcome["peer"] != second["peer"]

    async def test_after_the_window_there_is_one_leave_and_no_resume(self):
        async with signaling(resume_window=0.2) as service, sockets(service) as connect:
            one, two, _, second = await pair(connect)
            two.ws._response.connection.transport.abort()
            events = [await one.hear("peer") for _ in range(2)]
            assert [e["event"] for e in events] == ["suspended", "leave"]
            assert events[1]["reason"] == "timeout"
            seen = {"session": second["session"], "secret": second["secret"], "seq": 0}
            assert (await (await connect()).hello(resume=seen))["resumed"] is False

    async def test_a_retry_with_the_same_id_is_delivered_once(self):
        async with signaling() as service, sockets(service) as connect:
            one, two, _, second = await pair(connect)
            for _ in range(3):
                await one.say(type="message", id="same", to=second["peer"], data="once")
                assert (await one.hear("ok"))["id"] == "same"
            await one.say(type="message", id="other", to=second["peer"], data="twice")
            assert [(await two.hear("message"))["data"] for _ in range(2)] == ["once", "twice"]

    async def test_what_the_old_socket_still_says_to_a_session_that_is_over_is_answered(self):
        async with signaling() as service, sockets(service) as connect:
            _, old, first, second = await pair(connect)
            gap = {"session": second["session"], "secret": second["secret"], "seq": 99}
            again = await connect()
            assert (await again.hello(resume=gap))["resumed"] is False
            await old.say(type="message", id="late", to=first["peer"], data="too late")
            await old.say(type="join", id="later", room="demo")
            assert await old.closed() == 4003


class TestTokens:
    async def test_a_token_opens_its_room_and_no_other(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            await one.hello(token=token("r", name="Ada", sub="ada"), name="Mallory")
            assert (await one.join("s"))["code"] == "forbidden"
            joined = await one.join("r")
            assert joined["iceServers"][1]["username"].endswith(":ada")

    @pytest.mark.parametrize("bad", [None, "", "nonsense", token(exp=1)])
    async def test_without_a_good_token_the_socket_ends(self, bad):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            await one.say(type="hello", token=bad)
            assert (await one.hear())["code"] == "unauthorized"
            assert await one.closed() == 4503

    @pytest.mark.parametrize("later", [{}, {"token": token("r", exp=1)}])
    async def test_a_session_outlives_its_token(self, later):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            begun = await one.hello(token=token("r", sub="ada"))
            await one.join("r")
            one.ws._response.connection.transport.abort()
            seen = {"session": begun["session"], "secret": begun["secret"], "seq": 0}
            again = await connect()
            assert (await again.hello(resume=seen, **later))["resumed"] is True
            await again.say(type="ice", id="1")
            servers = (await again.hear("ice"))["iceServers"]
            assert servers[-1]["username"].endswith(":ada")

    async def test_a_session_that_cannot_go_on_needs_a_good_token_again(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one = await connect()
            unknown = {"session": "gone", "secret": "guessed", "seq": 0}
            await one.say(type="hello", resume=unknown, token=token("r", exp=1))
            assert (await one.hear())["code"] == "unauthorized"
            assert await one.closed() == 4503

    async def test_who_may_not_publish_hears_and_says_nothing(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one, two = await connect(), await connect()
            await one.hello(token=token(canPublish=False))
            await two.hello(token=token())
            await one.join("r")
            await two.join("r")
            await two.say(type="message", id="1", data=1)
            await one.hear("message")
            await one.say(type="message", id="1", data=1)
            assert (await one.hear("error"))["code"] == "forbidden"

    async def test_a_tokens_capacity_counts(self):
        async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
            one, two = await connect(), await connect()
            await one.hello(token=token(capacity=1))
            await two.hello(token=token(capacity=1))
            await one.join("r")
            assert (await two.join("r"))["code"] == "room_full"

    async def test_one_user_has_so_many_sockets_and_no_more(self):
        async with (
            signaling(token_secret=TOKEN_SECRET, max_connections_per_user=2) as service,
            sockets(service) as connect,
        ):
            ada = {"token": token(sub="ada")}
            first, second, third, other = [await connect() for _ in range(4)]
            begun = await first.hello(**ada)
            await second.hello(**ada)
            await third.say(type="hello", **ada)
            assert (await third.hear())["code"] == "too_many_connections"
            assert await third.closed() == 4508
            await other.hello(token=token(sub="bob"))
            # Her own socket may be replaced, which makes it no third one.
            seen = {"session": begun["session"], "secret": begun["secret"], "seq": 0}
            again = await connect()
            assert (await again.hello(resume=seen))["resumed"] is True
            assert await first.closed() == 4501
            # One that she drops makes room for another one; it comes back when there is room again.
            again.ws._response.connection.transport.abort()
            await until(lambda: service._websockets.connections == 2)
            last, back = await connect(), await connect()
            await last.hello(**ada)
            await back.say(type="hello", resume=seen)
            refused = await back.hear()
            assert (refused["code"], refused["retryable"]) == ("unavailable", True)
            assert await back.closed() == 4004
            await last.ws.close()
            await until(lambda: service._websockets.connections == 2)
            back = await connect()
            assert (await back.hello(resume=seen))["resumed"] is True
        assert not service._hub._holders

    async def test_tokens_of_nobody_count_by_their_room(self):
        async with (
            signaling(token_secret=TOKEN_SECRET, max_connections_per_user=1) as service,
            sockets(service) as connect,
        ):
            shared = {"token": token(capacity=2)}
            for _ in range(4):
                await (await connect()).hello(**shared)
            one = await connect()
            await one.say(type="hello", **shared)
            assert (await one.hear())["code"] == "too_many_connections"
            await (await connect()).hello(token=token("another", capacity=2))


class TestHttp:
    async def get(self, service, path, **options):
        async with (
            aiohttp.ClientSession() as http,
            http.get(url(service, path), **options) as response,
        ):
            return response, await response.text()

    async def test_ice_is_what_a_peer_connection_takes(self):
        async with signaling() as service:
            response, text = await self.get(service, "/ice")
            document = json.loads(text)
            assert set(document) == {
                "iceServers", "iceTransportPolicy", "ttl", "expiresAt", "username", "password",
                "uris",
            }  # fmt: skip
            expiry, _, _ = document["username"].partition(":")
            assert abs(int(expiry) - time.time() - 3600) < 5
            assert document["iceServers"][1]["credential"] == document["password"]
            assert response.headers["Cache-Control"] == "no-store"
            links = response.headers.getall("Link")
            assert links[0] == '<stun:127.0.0.1:3478>; rel="ice-server"'
            assert f'username="{document["username"]}"' in links[1]

    async def test_ice_wants_a_token_where_rooms_do(self):
        async with signaling(token_secret=TOKEN_SECRET) as service:
            response, _ = await self.get(service, "/ice")
            assert response.status == 401
            good = {"Authorization": f"Bearer {token(sub='ada')}"}
            response, text = await self.get(service, "/ice", headers=good)
            assert json.loads(text)["username"].endswith(":ada")
            response, _ = await self.get(service, f"/ice?token={token()}")
            assert response.status == 200

    async def test_the_operator_is_told_once_which_page_was_refused(self, capsys):
        async with signaling() as service:
            for number in range(2):
                for path in ("/ice", "/ws"):
                    origin = {"Origin": f"https://page{number}.example"}
                    response, _ = await self.get(service, path, headers=origin)
                    assert response.status == 403
            for number in range(100):
                origin = {"Origin": f"https://flood{number}.example"}
                await self.get(service, "/ws", headers=origin)
        told = capsys.readouterr().out
        assert [told.count(f"page{number}.example") for number in range(2)] == [1, 1]
        assert told.count("signaling.allowed_origins") == 64

    async def test_pages_of_other_sites_are_refused(self):
        async with signaling(allowed_origins=["https://good.example"]) as service:
            response, _ = await self.get(
                service, "/ice", headers={"Origin": "https://evil.example"}
            )
            assert response.status == 403
            response, _ = await self.get(
                service, "/ice", headers={"Origin": "https://good.example"}
            )
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == "https://good.example"
            async with sockets(service) as connect:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await connect(origin="https://evil.example")
                assert refused.value.status == 403
                await (await connect(origin="https://good.example")).hello()

    @pytest.mark.parametrize("path", ["/", "/trickle", "/client.js", "/client.d.ts"])
    async def test_pages_are_served_with_security_headers(self, path):
        async with signaling() as service:
            response, text = await self.get(service, path)
            assert response.status == 200
            assert text
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize(
        "path", ["/assets/../server.py", "/assets/%2e%2e/server.py", "/nothing"]
    )
    async def test_nothing_else_is_served(self, path):
        async with signaling() as service:
            response, _ = await self.get(service, path)
            assert response.status in {403, 404}
            assert response.headers["X-Content-Type-Options"] == "nosniff"


class TestPythonClient:
    async def test_who_gives_up_waiting_for_a_server_leaves_nothing_behind(self):
        before = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), Client("ws://127.0.0.1:9/ws"):
                pass
        await until(lambda: asyncio.all_tasks() == before)

    async def test_a_fault_of_the_function_that_gets_tokens_is_heard(self):
        async def token():
            raise KeyError("no such user")

        async with signaling() as service:
            with pytest.raises(SignalingError, match="no such user") as failed:
                async with Client(url(service, "/ws", "ws"), token=token):
                    pass
        assert failed.value.code == "no_token"
        assert isinstance(failed.value.__cause__, KeyError)

    async def test_it_comes_back_by_itself_and_misses_nothing(self):
        async with signaling(max_message_burst=1000) as service:
            address = url(service, "/ws", "ws")
            async with Client(address, name="one") as one, Client(address, name="two") as two:
                await one.join("r")
                joined = await two.join("r")
                peer = joined["peers"][0]["id"]
                got = []

                async def collect():
                    async for event in one.events():
                        if event["type"] == "message":
                            got.append(event["data"])
                        if len(got) == 60:
                            return

                collecting = asyncio.create_task(collect())
                for number in range(60):
                    if number % 20 == 10:
                        await one.drop()
                    if number % 20 == 15:
                        await two.drop()
                    await two.message(number, to=peer)
                await asyncio.wait_for(collecting, PATIENCE)
                assert got == list(range(60))

    async def test_what_was_asked_first_is_sent_first_after_a_reconnect(self):
        async with signaling() as service:
            address = url(service, "/ws", "ws")
            async with Client(address) as one, Client(address) as two:
                await one.join("r")
                await two.join("r")
                events, heard = one.events(), two.events()
                await anext(events)
                await one.drop()
                asked = [asyncio.create_task(one.message(text)) for text in ("first", "second")]
                while (await anext(events))["type"] != "resumed":
                    pass
                asked.append(asyncio.create_task(one.message("third")))
                await asyncio.gather(*asked)
                got = [event async for event in until_data(heard, "third")]
                assert got == ["first", "second", "third"]

    async def test_who_does_not_read_events_gets_answers_and_hears_what_was_lost(self, monkeypatch):
        monkeypatch.setattr("signaling.client.rooms.Unread", partial(Unread, 4))
        async with signaling() as service:
            address = url(service, "/ws", "ws")
            async with Client(address) as one, Client(address) as two:
                await two.join("r")
                await one.join("r")  # of which two hears first
                for number in range(5):
                    await one.message(number)
                await two.message("sent and answered")
                await until(lambda: two._connection._session.seen == 6)
                heard = two.events()
                got = [await anext(heard) for _ in range(5)]
                assert [each.get("data") for each in got] == [None, 0, 1, 2, None]
                assert got[-1] == {"type": "lost", "count": 2}
                await one.message("later")
                assert (await anext(heard))["data"] == "later"

    async def test_it_says_so_when_the_session_could_not_go_on(self):
        async with signaling(resume_window=0.05) as service:
            address = url(service, "/ws", "ws")
            async with Client(address) as one:
                await one.join("r", {"seat": 1})
                peer = one.peer
                transport = one._connection._socket._transport
                await asyncio.sleep(0)
                transport.abort()
                async for event in one.events():
                    if event["type"] in {"restarted", "resumed"}:
                        break
                if event["type"] == "restarted":
                    assert event["joined"][0]["room"] == "r"
                    assert one.peer != peer

    async def test_before_it_joins_again_it_may_tell_those_whom_it_calls(self):
        async with signaling() as service:
            address = url(service, "/ws", "ws")
            told = []

            async def tell(peer):
                found = await service._hub.present()
                told.append((peer, peer in [who.record.peer for who, rooms in found if rooms]))
                raise ValueError("a fault of the application's")

            async with Client(address, before_rejoin=tell) as one:
                await one.join("r")
                assert not told
                peer = one.peer
                granted = one._connection._session._granted
                assert granted is not None
                granted["secret"] = "forgotten"
                await one.drop()
                async with asyncio.timeout(30):
                    async for event in one.events():
                        if event["type"] == "restarted":
                            break
                assert [joined["room"] for joined in event["joined"]] == ["r"]
                assert told == [(one.peer, False)]
                assert one.peer != peer

    async def test_a_burst_is_paced_and_not_refused(self):
        # A fifth of the burst is kept for delays on the way: here up to 1 s, of a busy machine.
        async with signaling(max_message_burst=80, max_messages_per_second=20) as service:
            address = url(service, "/ws", "ws")
            async with Client(address) as one, Client(address) as two:
                await one.join("r")
                await two.join("r")
                await asyncio.gather(*(one.message(number) for number in range(90)))
                events = two.events()
                got = [await anext(events) for _ in range(90)]
                assert [event["data"] for event in got] == list(range(90))
                assert service.stats.dropped.total() == 0

    async def test_errors_have_the_protocols_codes(self):
        async with signaling(room_capacity=1) as service:
            address = url(service, "/ws", "ws")
            async with Client(address) as one, Client(address) as two:
                await one.join("r")
                with pytest.raises(SignalingError) as full:
                    await two.join("r")
                assert full.value.code == "room_full"
                with pytest.raises(SignalingError) as gone:
                    await two.signal("nobody", candidate=None)
                assert gone.value.code == "not_found"
                assert (await two.ice_servers())["iceServers"]

    async def test_a_server_that_does_not_want_it_is_left_alone(self):
        async with signaling(token_secret=TOKEN_SECRET) as service:
            with pytest.raises(SignalingError) as refused:
                async with Client(url(service, "/ws", "ws"), token="bad"):
                    pass
            assert refused.value.code == "refused"


async def test_the_client_gets_a_token_for_each_connection():
    fetched = []

    async def fetch():
        fetched.append(token(sub="u"))
        if len(fetched) == 2:
            raise OSError("the back end is away for a moment")
        return fetched[-1]

    async with (
        asyncio.timeout(PATIENCE),
        signaling(token_secret=TOKEN_SECRET) as service,
        Client(url(service, "/ws", "ws"), token=fetch) as one,
    ):
        await one.join("r")
        await one.drop()
        assert (await anext(one.events()))["type"] == "resumed"
    assert len(fetched) == 3


async def test_no_secret_no_token_and_no_sdp_is_logged(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    canary = "canary-7f3a"
    async with signaling(token_secret=TOKEN_SECRET) as service, sockets(service) as connect:
        one, two = await connect(), await connect()
        good = token(sub=canary)
        welcome = await one.hello(token=good, name=canary)
        await two.hello(token=token())
        await one.join("r")
        await two.join("r")
        await one.say(type="message", id="1", data={"sdp": canary})
        await one.ws.send_str(canary)
        await two.hear("message")
        bad = await connect()
        await bad.say(type="hello", token=canary)
        await bad.closed()
    written = caplog.text + "".join(capsys.readouterr())
    assert "socket ended" in written
    for secret in (canary, good, welcome["secret"], TOKEN_SECRET):
        assert secret not in written


async def test_the_series_of_the_metrics_do_not_grow_with_users():
    async with signaling() as service, sockets(service) as connect:

        def series():
            return sum(len(metric.samples) for metric in service.collector.collect())

        before = series()
        for number in range(30):
            one = await connect()
            await one.hello(name=f"user {number}")
            await one.join(f"room {number}")
            await one.ws.close()
        assert series() == before
