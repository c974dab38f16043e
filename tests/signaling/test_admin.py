"""Rooms and peers as an operator sees them and ends them, over each broker."""

import asyncio
import socket
import time
from urllib.parse import urlencode

import aiohttp
import jwt
import pytest

from tests.operator_api import operator
from tests.redis_server import redis_server
from tests.signaling.live import default_broker, on, signaling, sockets, url
from turn.admin.journal import Journal

TOKEN_SECRET = "the secret of the join tokens, 32+"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis for this file."""
    with redis_server(tmp_path_factory.mktemp("redis")) as one:
        yield one


@pytest.fixture(params=["memory", "redis"])
async def stage(request):
    """A service on that broker, its operator, and what connects to it."""
    if request.param == "redis":
        default_broker.set(on(request.getfixturevalue("server")))
    journal = Journal()
    try:
        async with (
            signaling(tell=journal.tell, token_secret=TOKEN_SECRET) as service,
            operator(journal, service) as api,
            sockets(service) as connect,
        ):
            yield service, api, connect
    finally:
        default_broker.set(None)


def token(name: str, room: str = "demo") -> str:
    claims = {"room": room, "sub": name, "name": name.title(), "exp": int(time.time()) + 60}
    return jwt.encode(claims, TOKEN_SECRET, algorithm="HS256")


async def enter(connect, name: str, room: str = "demo"):
    """Somebody in a room: the socket and its welcome."""
    peer = await connect()
    welcome = await peer.hello(token=token(name, room))
    await peer.join(room)
    return peer, welcome


async def test_who_is_where(stage):
    _, api, connect = stage
    _, anna = await enter(connect, "anna")
    await enter(connect, "bert")
    await enter(connect, "carl", "other")
    rooms = (await api.get("rooms"))["rooms"]
    assert rooms == [
        {"id": "demo", "peers": 2, "connected": 2},
        {"id": "other", "peers": 1, "connected": 1},
    ]
    found = (await api.get("peers?rooms=demo&user=anna"))["peers"]
    assert found == [
        {"id": anna["peer"], "name": "Anna", "user": "anna", "rooms": ["demo"], "connected": True}
    ]
    members = (await api.get("rooms/demo"))["members"]
    assert [member["user"] for member in members] == ["anna", "bert"]
    figures = (await api.get("status"))["services"]["signaling"]
    assert (figures["rooms"], figures["peers"], figures["connections"]) == (2, 3, 3)
    assert figures["broker_up"]


async def test_a_peer_is_removed_for_good(stage):
    _, api, connect = stage
    anna, welcome = await enter(connect, "anna")
    bert, _ = await enter(connect, "bert")
    assert (await anna.hear("peer"))["event"] == "join"
    end = asyncio.ensure_future(anna.closed())
    assert (await api.ask(f"peers/{welcome['peer']}", "DELETE")).status == 200
    left = await bert.hear("peer")
    assert (left["event"], left["reason"]) == ("leave", "removed")
    assert await end == 4507
    again = await connect()
    seen = {"session": welcome["session"], "secret": welcome["secret"], "seq": 1}
    assert not (await again.hello(token=token("anna"), resume=seen))["resumed"]
    assert (await api.ask(f"peers/{welcome['peer']}", "DELETE")).status == 404


async def test_a_room_is_closed(stage):
    _, api, connect = stage
    in_room = [(await enter(connect, name))[0] for name in ("anna", "bert")]
    ends = asyncio.gather(*(peer.closed() for peer in in_room))
    outside, _ = await enter(connect, "carl", "other")
    assert (await api.ask("rooms/demo", "DELETE")).body == {"id": "demo", "ended": True}
    assert await ends == [4507, 4507]
    await outside.say(type="ping", t=1)
    assert await outside.hear("pong")
    assert [room["id"] for room in (await api.get("rooms"))["rooms"]] == ["other"]


async def test_a_revoked_user_is_out_and_its_tokens_open_nothing(stage):
    service, api, connect = stage
    anna, _ = await enter(connect, "anna")
    bert, _ = await enter(connect, "bert")
    end = asyncio.ensure_future(anna.closed())
    answer = await api.ask("revocations/anna", "PUT", {"seconds": 60})
    assert answer.body["ended"] == {"signaling": 1}
    assert await end == 4503
    assert (await bert.hear("peer"))["reason"] == "revoked"
    again = await connect()
    await again.say(type="hello", token=token("anna"))
    assert (await again.hear("error"))["code"] == "unauthorized"
    headers = {"Authorization": f"Bearer {token('anna')}"}
    async with aiohttp.ClientSession() as http:
        async with http.get(url(service, "/ice"), headers=headers) as ice:
            assert ice.status == 401
        await api.ask("revocations/anna", "DELETE")
        async with http.get(url(service, "/ice"), headers=headers) as ice:
            assert ice.status == 200
    await enter(connect, "anna")
    refusals = [each["facts"] for each in (await api.get("refusals"))["refusals"]]
    assert {each["code"] for each in refusals} == {"unauthorized"}
    bad = "the join token is not good: its subject was revoked"
    assert [each["why"] for each in refusals] == [f"/ice: {bad}", bad]


async def test_who_lost_its_socket_is_still_seen_and_may_be_removed(stage):
    _, api, connect = stage
    anna, welcome = await enter(connect, "anna")
    bert, _ = await enter(connect, "bert")
    anna.ws._response.connection.transport.abort()
    assert (await bert.hear("peer"))["event"] == "suspended"
    (found,) = (await api.get("peers?connected=false"))["peers"]
    assert found["id"] == welcome["peer"]
    assert (await api.ask(f"peers/{welcome['peer']}", "DELETE")).status == 200
    again = await connect()
    seen = {"session": welcome["session"], "secret": welcome["secret"], "seq": 1}
    assert not (await again.hello(token=token("anna"), resume=seen))["resumed"]


async def test_nothing_that_is_kept_holds_a_secret(stage):
    _, api, connect = stage
    _, welcome = await enter(connect, "anna")
    bad = await connect()
    await bad.say(type="hello", token="a-bad-token-canary")
    await bad.hear("error")
    for path in ("status", "rooms/demo", f"peers/{welcome['peer']}", "refusals", "errors"):
        text = (await api.ask(path)).text
        for secret in (welcome["secret"], welcome["session"], "canary", TOKEN_SECRET):
            assert secret not in text


async def test_which_other_nodes_there_are(server):
    default_broker.set(on(server))
    try:
        async with (
            signaling(token_secret=TOKEN_SECRET) as service,
            operator(Journal(), service) as api,
            sockets(service) as connect,
        ):
            await enter(connect, "anna")
            alone = await api.get("rooms")
            assert (alone["part"], alone["total"]) == (None, 1)
            async with (
                signaling(token_secret=TOKEN_SECRET) as other,
                sockets(other) as elsewhere,
            ):
                await enter(elsewhere, "bert", "other")
                for kind in ("rooms", "peers"):
                    page = await api.get(kind)
                    assert page["total"] == 1
                    assert page["part"].startswith("Only what is at this node, on ")
                    assert f"{socket.gethostname()} (1 sessions)" in page["part"]
                nodes = (await api.get("status"))["services"]["signaling"]["nodes"]
                assert [(node["name"], node["sessions"]) for node in nodes] == [
                    (socket.gethostname(), 1)
                ] * 2
                assert nodes[0]["id"] == service._broker.node
            assert (await api.get("rooms"))["part"] is None
        assert not [key for key in server.every_key() if key.endswith(b":h")]
    finally:
        default_broker.set(None)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "..%2f..", "%2E%2E", "?#&+ é"])
async def test_names_that_a_path_cannot_have(stage, name):
    _, api, connect = stage
    peer, _ = await enter(connect, name, name)
    asked = urlencode({"id": name})
    assert (await api.get(f"room?{asked}"))["id"] == name
    assert (await api.ask(f"room?{asked}", "DELETE")).body == {"id": name, "ended": True}
    assert await peer.closed() == 4507
    assert (await api.ask(f"room?{asked}")).status == 404
    user = urlencode({"user": name})
    made = await api.ask(f"revocation?{user}", "PUT")
    assert (made.status, made.body["user"]) == (200, name)
    assert (await api.ask(f"revocation?{user}", "DELETE")).body == {"revocations": []}


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_nobody_is_revoked_by_no_name(stage, method):
    _, api, _ = stage
    assert (await api.ask("revocation", method)).status == 400
