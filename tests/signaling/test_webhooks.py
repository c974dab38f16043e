"""Webhooks of what becomes of rooms and peers, to a real receiver, over both brokers."""

import asyncio
import base64
import json
import re
import secrets
import socket
import threading

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from config.webhooks import delivery
from config.webhooks.post import Poster, Unreachable, keys_of, sign
from config.webhooks.waiting import MOST_WAITING, WaitingEvents
from signaling.broker.base import Unavailable
from signaling.client import Client
from tests.interop.cluster import cluster
from tests.patience import PATIENCE, until
from tests.receiver import SECRET, receiver
from tests.redis_server import redis_server
from tests.signaling.live import on, signaling, sockets, url


@pytest.fixture
async def back_end():
    async with receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Tries follow sooner on each other."""
    monkeypatch.setattr(delivery, "FIRST_DELAY", 0.1)
    monkeypatch.setattr(delivery, "LOOK", 0.02)


def telling(broker, back_end, **settings):
    """A node that tells the receiver."""
    return signaling(
        broker, webhook_url=back_end.url, webhook_secret=["an older one, of 16", SECRET], **settings
    )


def test_a_signature_is_that_of_the_specification_s_own_example():
    (key,) = keys_of("whsec_plJ3nmyCDGBKInavdOK15jsl")
    body = b'{"event_type":"ping","data":{"success":true}}'
    assert sign(key, "msg_loFOjxBNrRLzqYUf", 1731705121, body) == (
        "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="
    )


@pytest.mark.parametrize("prefix", ["whsec_", ""])
async def test_the_specification_s_library_believes_it(back_end, prefix):
    """As a back end uses it, with the same secret, as operators make it."""
    made = prefix + base64.b64encode(secrets.token_bytes(32)).decode()
    async with (
        signaling(webhook_url=back_end.url, webhook_secret=[SECRET, made]) as service,
        sockets(service) as connect,
    ):
        one = await connect()
        await one.hello(name="Ada")
        await one.join("r")
        await back_end.until("room.opened", "peer.joined Ada")
    for headers, body in back_end.requests:
        assert Webhook(made).verify(body, headers) == json.loads(body)
        with pytest.raises(WebhookVerificationError):
            Webhook(made).verify(body + b" ", headers)


async def test_what_becomes_of_a_room_is_told_in_order(broker, back_end):
    async with (
        telling(broker, back_end, resume_window=3) as service,
        sockets(service) as connect,
    ):
        one = await connect()
        welcome = await one.hello(name="Ada")
        await one.say(type="join", id="1", room='r "quoted" ü,"id":', meta={"seat": 1})
        await one.hear("joined")
        one.ws._response.connection.transport.abort()
        await back_end.until("room.opened", "peer.joined Ada", "peer.suspended Ada")
        again = await connect()
        seen = {"session": welcome["session"], "secret": welcome["secret"], "seq": 0}
        assert (await again.hello(resume=seen))["resumed"] is True
        await again.say(type="join", id="2", room='r "quoted" ü,"id":', meta={"seat": 2})
        await again.hear("joined")
        again.ws._response.connection.transport.abort()
        await back_end.until(
            "room.opened", "peer.joined Ada", "peer.suspended Ada", "peer.resumed Ada",
            "peer.updated Ada", "peer.suspended Ada", "peer.left Ada timeout", "room.closed",
        )  # fmt: skip
    opened, joined, *_, updated, _, left, closed = back_end.got
    assert opened["data"] == closed["data"] == {"room": 'r "quoted" ü,"id":'}
    assert joined["data"] == {
        "room": 'r "quoted" ü,"id":', "id": welcome["peer"], "name": "Ada", "meta": {"seat": 1},
        "user": welcome["peer"], "reason": "",
    }  # fmt: skip
    assert updated["data"]["meta"] == {"seat": 2}
    assert left["data"]["reason"] == "timeout"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", joined["timestamp"])
    assert len(set(back_end.ids)) == 8


async def test_who_leaves_and_the_quiet_ones_are_told_of_too(broker, back_end):
    async with telling(broker, back_end, peerjs=True) as service:
        async with Client(url(service, "/ws", "ws"), name="Ada") as ada:
            await ada.join("r")
            await ada.leave("r")
            await ada.join("s")
        query = "/peerjs?key=peerjs&id=bob&token=t"
        async with aiohttp.ClientSession() as http:
            ws = await http.ws_connect(url(service, query))
            await ws.receive()
            await ws.close()
        await until(lambda: not (len(back_end.got) < 12))
    for room, name in (("r", "Ada"), ("s", "Ada"), ("peerjs/peerjs", "bob")):
        assert [m["type"] for m in back_end.got if m["data"]["room"] == room] == [
            "room.opened", "peer.joined", "peer.left", "room.closed",
        ]  # fmt: skip
        assert name in {m["data"].get("name") for m in back_end.got if m["data"]["room"] == room}


async def test_what_is_not_taken_is_told_again_under_its_id(broker, back_end):
    fails = iter([500, 302, 404])

    async def answer(_):
        return web.Response(status=next(fails, 200), headers={"Location": "/elsewhere"})

    back_end.answer = answer
    async with telling(broker, back_end) as service:
        async with Client(url(service, "/ws", "ws"), name="Ada") as ada:
            await ada.join("r")
            await until(lambda: not (service.stats.webhooks["delivered"] < 2))
        assert service.stats.webhooks["failed"] == 3
    assert len(back_end.got) >= 5
    assert len(set(back_end.ids[:5])) == 2


async def test_a_receiver_that_hangs_or_pours_is_left(back_end):
    poster = Poster([SECRET], 0.2)
    try:

        async def hang(_):
            await asyncio.sleep(5)
            return web.Response()

        async def pour(_):
            return web.Response(body=b"x" * 20_000)

        for answer in (hang, pour):
            back_end.answer = answer
            with pytest.raises(Unreachable):
                await poster.post(back_end.url, "id", b"{}")
        with pytest.raises(Unreachable):
            await poster.post("http://127.0.0.1:9/", "id", b"{}")
    finally:
        await poster.stop()


def test_a_resolver_that_hangs_keeps_no_process(monkeypatch):
    """A loop waits for its own threads when it ends: this one is not of them."""
    ends, told = threading.Event(), []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ends.wait(PATIENCE) and [])

    async def post():
        poster = Poster([SECRET], 0.2)
        try:
            await poster.post("http://app.example.org/", "id", b"{}")
        except Unreachable as error:
            told.append(str(error))
        await poster.stop()

    whole = threading.Thread(target=lambda: asyncio.run(post()))
    whole.start()
    whole.join(PATIENCE / 2)
    is_kept = whole.is_alive()
    ends.set()
    whole.join()
    assert not is_kept
    assert told


async def test_a_back_end_is_found_by_its_name_in_either_family(back_end):
    poster = Poster([SECRET], 5)
    try:
        at_name = back_end.url.replace("127.0.0.1", "localhost")
        assert (await poster.post(at_name, "id", b"{}")).ok
        with pytest.raises(Unreachable):
            await poster.post("http://no-such-host.invalid/", "id", b"{}")
    finally:
        await poster.stop()


async def test_what_nobody_takes_for_hours_is_given_up(broker, back_end, monkeypatch):
    monkeypatch.setattr(delivery, "GIVE_UP", 0.3)
    back_end.says(500)
    async with telling(broker, back_end) as service:
        async with Client(url(service, "/ws", "ws")) as ada:
            await ada.join("r")
            await until(lambda: not (service.stats.webhooks["given_up"] < 2))
        count = len(back_end.got)
        await asyncio.sleep(0.3)
        assert {m["type"] for m in back_end.got[count:]} <= {"peer.left", "room.closed"}


async def test_nothing_is_kept_where_nobody_is_to_be_told(server):
    redis = on(server)
    async with signaling(redis) as service, Client(url(service, "/ws", "ws")) as ada:
        await ada.join("r")
        assert not [
            key for key in server.every_key() if b"w:" in key and redis.prefix.encode() in key
        ]


async def test_what_waits_is_bounded_and_has_a_ttl(server, back_end):
    waiting = WaitingEvents()
    for number in range(MOST_WAITING + 5):
        waiting.note("room.opened", room=str(number))
    assert len(waiting) == MOST_WAITING
    back_end.says(500)
    async with (
        telling(on(server), back_end) as service,
        Client(url(service, "/ws", "ws")) as ada,
    ):
        await ada.join("r")
        await until(lambda: back_end.got)
        assert server.without_ttl() == []


async def test_what_cannot_be_kept_is_said(broker, back_end, server):
    """Whoever floods a room takes no news from the others in silence."""
    back_end.says(500)
    async with telling(broker, back_end) as service:
        await fill(service, server, MOST_WAITING - 2)
        async with Client(url(service, "/ws", "ws"), name="Ada") as ada:
            await ada.join("r")  # two events, and what became of Ada is not kept
        assert await count(service, server) == MOST_WAITING
        back_end.says(204)
        await until(lambda: "events.lost" in back_end.told())
        assert {"type": "events.lost", "data": {"room": ""}}.items() <= back_end.got[-1].items()
        assert "peer.joined Ada" not in back_end.told()
        await fill(service, server, 0)
        async with Client(url(service, "/ws", "ws"), name="Bo") as bo:
            await bo.join("r")
            await until(lambda: "peer.joined Bo" in back_end.told())


async def fill(service, server, wanted):
    """Have so many events wait that are not due for long."""
    if service._broker.__class__.__name__ == "MemoryBroker":
        waiting = service._broker._waiting
        waiting.end(list(waiting._events))
        for number in range(wanted):
            waiting._put(f"x{number}", 0, waiting._clock() + 1000, b"{}")
        return
    key = queue_of(service)
    server.client.delete(key)
    if wanted:
        later = 10**14
        server.client.zadd(key, {f"x{number}": later for number in range(wanted)})


async def count(service, server):
    """How many wait."""
    if service._broker.__class__.__name__ == "MemoryBroker":
        return len(service._broker._waiting)
    return server.client.zcard(queue_of(service))


def queue_of(service):
    """The key of what is due."""
    return f"{service._broker._link._tag}:w:due"


def test_the_order_of_the_embedded_queue_and_its_leases():
    now = [1000.0]
    waiting = WaitingEvents(lambda: now[0])
    for number in range(12):
        waiting.note("room.opened", room=str(number))
    first = waiting.take(10, lease=5)
    assert [event.tries for event in first] == [1] * 10
    assert [f'"room":"{number}"'.encode() in event.event for number, event in enumerate(first)] == (
        [True] * 10
    )
    assert len(waiting.take(10, lease=60)) == 2
    waiting.end([event.id for event in first[1:]])
    assert waiting.take(10, lease=60) == []
    now[0] += 5
    (again,) = waiting.take(10, lease=60)
    assert (again.id, again.tries) == (first[0].id, 2)
    waiting.retry(again.id, 0.0)
    assert [event.tries for event in waiting.take(10, lease=60)] == [3]
    assert len(waiting) == 3


@pytest.mark.usefixtures("soon_away")
async def test_while_redis_is_away_nothing_is_lost(tmp_path, back_end):
    with redis_server(tmp_path, "--appendonly", "no") as own:
        async with telling(on(own), back_end) as service:
            async with Client(url(service, "/ws", "ws"), name="Ada") as ada:
                await ada.join("r")
                await back_end.until("room.opened", "peer.joined Ada")
                own.sleep()
                broker = service._broker
                await until(lambda: not (broker.is_up()))
                with pytest.raises(Unavailable):
                    await broker.take_events(1, 1)
                own.wake()
            await back_end.until(
                "room.opened", "peer.joined Ada", "peer.left Ada left", "room.closed"
            )


async def test_a_node_that_is_killed_leaves_its_share_to_another(tmp_path, back_end):
    """Its own last words, of which it died, and what becomes of its peers."""
    held = asyncio.Event()

    async def hold(_):
        await held.wait()
        return web.Response()

    back_end.answer = hold
    settings = {
        "webhook_url": back_end.url, "webhook_secret": SECRET, "webhook_timeout": 0.2,
        "resume_window": 1,
    }  # fmt: skip
    with cluster(tmp_path, lease=2.0, **settings) as (one, two):
        two.sleep()  # so that the other one is the first that takes the events
        client = Client(f"ws://127.0.0.1:{one.port}/ws", name="Ada")
        await client.__aenter__()
        await client.join("r")
        await until(lambda: back_end.got)
        one.kill()
        two.wake()
        held.set()
        await client.close()
        await until(lambda: len(set(back_end.ids)) == 5)
    # In the order of the ids: what the dead one had taken comes when it is due again.
    assert back_end.history() == [
        "room.opened", "peer.joined Ada", "peer.suspended Ada", "peer.left Ada timeout",
        "room.closed",
    ]  # fmt: skip
