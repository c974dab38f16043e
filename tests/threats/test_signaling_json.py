"""JSON that one parser takes and another does not: nobody can be told what breaks him."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from signaling.client import Client, SignalingError
from signaling.protocol import messages as m
from signaling.protocol import peerjs
from signaling.protocol.errors import ProtocolError
from tests.patience import PATIENCE
from tests.redis_server import redis_server
from tests.signaling.live import on, signaling, sockets, url
from tests.signaling.scripted import serving


@pytest.fixture(params=["memory", "redis"])
def redis(request, tmp_path_factory):
    """The settings of either broker."""
    if request.param == "memory":
        yield None
        return
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield on(server)


WELCOME = json.dumps(
    {"type": "welcome", "session": "s", "secret": "x", "peer": "p", "resumed": False,
     "limits": {"messagesPerSecond": 50, "burst": 100}}
)  # fmt: skip


@asynccontextmanager
async def saying(*texts):
    """A server that says these, whatever it is told; its address."""

    async def says(ws):
        await ws.receive()
        for text in texts:
            await ws.send_str(text)
        async for _ in ws:
            pass

    async with serving(says) as address:
        yield address


def nested(depth, inner=""):
    return "[" * depth + inner + "]" * depth


async def test_nobody_locks_a_room_by_what_he_says_of_himself(redis):
    """Python reads JSON as deep as its own stack lets it: what is taken at one place and not at the
    next would end every session that joins."""
    async with signaling(redis) as service, sockets(service) as connect:
        for depth in (m.MOST_DEPTH - 2, *range(950, 1000, 3)):
            mallory = await connect()
            await mallory.hello()
            join = {"type": "join", "id": "1", "room": f"r{depth}", "meta": 0}
            await mallory.ws.send_str(json.dumps(join).replace("0}", nested(depth) + "}"))
            heard = await mallory.hear("joined", "error")
            assert heard["type"] == ("joined" if depth < m.MOST_DEPTH else "error")
            good = await connect()
            await good.hello()
            assert (await good.join(f"r{depth}"))["type"] == "joined"


def test_depth_is_counted_as_a_parser_counts_it():
    frame = '{"type":"message","id":"1","data":%s}'
    for fits in (
        nested(99),
        nested(98, '{"a":[]}'.replace("[]", "1")),
        json.dumps("[" * 500),
        json.dumps(['"[', '\\"[{', "\\"] * 50),
        "[" + ",".join(["[]"] * 500) + "]",
        "[" + ",".join(['{"a":{}}'] * 500) + "]",
    ):
        assert isinstance(m.parse_untrusted(frame % fits), m.Message), fits
    for too_deep in (nested(100), nested(99, "{}"), '{"]":' * 100 + "1" + "}" * 100):
        with pytest.raises(ProtocolError, match="levels"):
            m.parse_untrusted(frame % too_deep)
        assert peerjs.parse_untrusted(f'{{"type":"OFFER","payload":{too_deep}}}') is None


async def test_a_number_of_any_length_ends_no_client():
    """Python refuses integers of more than 4,300 digits; a peer may send one all the same."""
    async with (
        signaling() as service,
        sockets(service) as connect,
        Client(url(service, "/ws", "ws")) as victim,
    ):
        await victim.join("r")
        mallory = await connect()
        await mallory.hello()
        await mallory.join("r")
        frame = '{"type":"message","id":"1","data":[%s,-%s]}'
        await mallory.ws.send_str(frame % ("1" * 5000, "2" * 60_000))
        await mallory.say(type="message", id="2", data="the end")
        heard = [event["data"] async for event in _messages(victim, 2)]
    assert heard == [[float("inf"), -float("inf")], "the end"]


async def _messages(client, count):
    async with asyncio.timeout(PATIENCE):
        async for event in client.events():
            if event["type"] == "message":
                yield event
                count -= 1
            if not count:
                return


@pytest.mark.parametrize(
    "said",
    ["no JSON", "[]", "1", '{"type":"welcome"}', "[" * 3000, '{"type":"goaway","deadline":"x"}',
     '{"type":"message","seq":"x"}', '{"type":"welcome","limits":[]}', '{"type":["x"]}'],
)  # fmt: skip
async def test_what_the_server_should_not_say_is_an_error_that_is_heard(said):
    """Whoever waits for a client's events must not wait for ever on one that has died."""
    async with saying(WELCOME if said.startswith('{"type":"m') else said, said) as address:
        with pytest.raises(SignalingError) as caught:
            await _listen(address)
    assert caught.value.code == "bad_frame"


async def _listen(address):
    async with asyncio.timeout(PATIENCE), Client(address) as client:
        async for _ in client.events():
            pass
