"""What the API does to a process: drain, reload, log level; and events as they happen."""

import asyncio
import json
import re
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from signaling.server import SignalingService
from tests.interop.process import ROOT
from tests.operator_api import TOKEN, both_operated
from tests.patience import PATIENCE, until
from tests.signaling.live import sockets
from tests.turn.live import UDP, port_of
from turn.admin.journal import OF_THE_PROCESS
from turn.admin.stream import MOST_WATCHERS
from turn.codec import registry
from turn.codec.registry import Method
from turn.server import TurnService
from turn.workers.pool import WorkerPool

TOLD = re.compile(r"""\b_?tell(?:_operators)?\(\s*"(\w+)",""")
"""Where the journal is told of an event."""


@pytest.fixture
async def stage():
    """Both services and their operator."""
    async with both_operated() as made:
        yield made


async def test_a_drain_is_watched_and_taken_back(stage, connect):
    turn, rooms, api = stage
    client = await connect(port_of(turn))
    await client.allocate()
    async with sockets(rooms) as join:
        peer = await join()
        await peer.hello()
        begun = (await api.ask("drain", "POST", {"seconds": 60})).body
        assert begun["left"] == {"allocations": 1, "connections": 1}
        assert (begun["draining"], begun["done"]) == (True, False)
        assert (await peer.hear("goaway"))["type"] == "goaway"
        assert 50 < (await api.get("drain"))["seconds_left"] <= 60
        assert (await api.ask("/readyz", token="")).status == 503
        other = await connect(port_of(turn))
        refused = await other.request(Method.ALLOCATE, UDP)
        assert refused.get(registry.ERROR_CODE)[0] == 508
        (refusal,) = (await api.get("refusals"))["refusals"]
        assert refusal["facts"]["why"] == "the relay is draining, or sends everyone elsewhere"
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            await join()
    await client.request(Method.REFRESH, (registry.LIFETIME, 0))
    await until(lambda: not rooms.left()["connections"])
    assert (await api.get("drain"))["done"]
    assert (await api.ask("drain", "DELETE")).body == {
        "draining": False, "seconds_left": 0.0, "left": {"allocations": 0, "connections": 0},
        "done": False,
    }  # fmt: skip
    assert (await api.ask("/readyz", token="")).status == 200
    await other.allocate()
    async with sockets(rooms) as join:
        await (await join()).hello()


async def test_a_misspelt_wish_changes_nothing(stage):
    _, _, api = stage
    for path, method, body in (
        ("drain", "POST", {"second": 600}),
        ("revocations/anna", "PUT", {"hours": 1}),
        ("log", "PUT", {"level": "info", "for": 60}),
    ):
        answer = await api.ask(path, method, body)
        assert (answer.status, "unknown field" in answer.body["message"]) == (400, True)
    assert not (await api.get("drain"))["draining"]
    assert (await api.get("revocations"))["revocations"] == []


async def test_a_drain_ends_with_its_process(stage):
    _, _, api = stage
    await api.ask("drain", "POST", {"seconds": 3600})
    # Nothing waits for the hour: the fixture stops everything now, and warns of tasks left over.


async def test_a_reload_that_is_refused_says_where(stage):
    _, _, api = stage
    assert (await api.ask("reload", "POST")).body == {"reloaded": True}
    api.control.problems = ["icebroker.toml:4: turn.realm: is empty"]
    answer = await api.ask("reload", "POST")
    assert answer.status == 409
    assert answer.body["problems"] == ["icebroker.toml:4: turn.realm: is empty"]


async def test_the_log_level(stage):
    _, _, api = stage
    assert await api.get("log") == {"level": "info"}
    assert (await api.ask("log", "PUT", {"level": "debug"})).body == {"level": "debug"}
    assert api.control.log_level == "debug"


class Stream:
    """Reads a stream of events."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> tuple[str, str, dict[str, Any]]:
        """The next event: its id, its kind, its data."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            async for line in self.answer.content:
                name, _, value = line.decode().strip().partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    return fields.get("id", ""), fields["event"], json.loads(fields["data"])
        raise AssertionError("the stream has ended")


async def test_events_as_they_happen(stage, connect):
    turn, rooms, api = stage
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with api.http.get(f"{api.base}/api/v1/events", headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        stream = Stream(answer)
        client = await connect(port_of(turn))
        await client.allocate()
        number, kind, event = await stream.next()
        assert (kind, event["facts"]["user"], event["number"]) == (
            "allocation_created", "alice", int(number),
        )  # fmt: skip
        await client.request(Method.REFRESH, (registry.LIFETIME, 0))
        _, kind, event = await stream.next()
        assert (kind, event["facts"]["reason"]) == ("allocation_closed", "released")
        async with sockets(rooms) as join:
            peer = await join()
            await peer.hello(name="Anna")
            await peer.join("demo")
            await peer.say(type="signal", id="1", to="nobody", candidate=None)
            kinds = [(await stream.next())[1] for _ in range(3)]
            assert kinds == ["session_opened", "room_joined", "message_refused"]
            end = asyncio.ensure_future(peer.closed())
            await api.ask("rooms/demo", "DELETE")
            assert await end == 4507
            kinds = [(await stream.next())[1] for _ in range(2)]
            assert kinds == ["operator", "session_closed"]
    missed = {**headers, "Last-Event-ID": number}
    url = f"{api.base}/api/v1/events?kinds=room_joined,session_closed"
    async with api.http.get(url, headers=missed) as answer:
        stream = Stream(answer)
        assert [(await stream.next())[1] for _ in range(2)] == ["room_joined", "session_closed"]


@pytest.mark.parametrize("query", ["kinds=allocation_created,rom_joined", "kind=log"])
async def test_events_that_there_are_none_of_are_told_from_those_that_do_not_happen(stage, query):
    _, _, api = stage
    refused = await api.ask(f"events?{query}")
    assert refused.status == 400
    for name in ("rom_joined", "room_joined") if "rom" in query else ("'kind'", "kinds"):
        assert name in refused.body["message"]


def test_every_kind_of_event_has_its_name_where_they_are_listed():
    known = {*OF_THE_PROCESS, *WorkerPool.events, *SignalingService.events}
    assert set(TurnService.events) < set(WorkerPool.events)
    told = set()
    for package in ("turn", "signaling"):
        for file in (ROOT / package).rglob("*.py"):
            told |= {name for call in TOLD.finditer(file.read_text()) for name in call.groups()}
    assert told == known


async def test_streams_are_bounded_and_their_places_come_free(stage):
    _, _, api = stage
    headers = {"Authorization": f"Bearer {TOKEN}"}
    url = f"{api.base}/api/v1/events"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        opened = [await http.get(url, headers=headers) for _ in range(MOST_WATCHERS)]
        assert (await api.ask("events")).status == 429
        for answer in opened:
            answer.close()

    # An event makes the server write, and so find out that they are gone.
    async def free() -> bool:
        await api.ask("log", "PUT", {"level": "info"})
        async with api.http.get(url, headers=headers) as answer:
            return bool(answer.status == 200)

    async with asyncio.timeout(PATIENCE):
        while not await free():
            pass


async def test_a_stream_ends_where_the_api_is_turned_off(stage):
    _, _, api = stage
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with api.http.get(f"{api.base}/api/v1/events", headers=headers) as answer:
        await answer.content.readline()
        api.admin._journal.switch(on=False)
        async with asyncio.timeout(PATIENCE):
            await answer.content.read()


async def test_what_an_operator_does_is_logged(stage, caplog):
    _, _, api = stage
    with caplog.at_level("INFO"):
        await api.ask("revocations/mallory", "PUT")
    (event,) = [e for e in api.admin._journal._recent if e.kind == "operator"]
    assert event.facts["action"] == "revoke"
    assert event.facts["user"] == "mallory"


@pytest.mark.parametrize("user", ["a b", "a/b", "{", "a{b}", "a%2Fb", "?", "#", "\n", "é", "a;b"])
async def test_a_user_of_any_name_is_revoked_and_restored(stage, user):
    _, _, api = stage
    path = f"revocations/{quote(user, safe='')}"
    assert (await api.ask(path, "PUT")).body["user"] == user
    assert (await api.ask(path, "DELETE")).body == {"revocations": []}
