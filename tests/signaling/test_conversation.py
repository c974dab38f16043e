"""What members of a room say to each other, and what is wrong with what they say."""

import logging
import time

import pytest

from tests.signaling.live import TOKEN_SECRET, pair, signaling, sockets, token

pytestmark = pytest.mark.usefixtures("over_both")


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
