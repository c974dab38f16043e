"""Limits of a connection, and sessions that outlive one."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from tests.signaling.live import pair, signaling, sockets

pytestmark = pytest.mark.usefixtures("over_both")


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
