"""The Python client at a node of ours."""

import asyncio
from functools import partial

import pytest

from signaling.client import Client, SignalingError
from signaling.client.unread import Unread
from tests.patience import PATIENCE, until
from tests.signaling.live import TOKEN_SECRET, signaling, token, url

pytestmark = pytest.mark.usefixtures("over_both")


async def until_data(events, last):
    """The data of each message, up to the last one."""
    async for event in events:
        if event["type"] == "message":
            yield event["data"]
            if event["data"] == last:
                return


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
