"""The PeerJS wire protocol, frame by frame, over one node and over two with Redis."""

import asyncio
import json
import time

import aiohttp
import pytest

from signaling.auth import Tokens
from signaling.protocol import peerjs
from tests.patience import PATIENCE, until
from tests.redis_server import redis_server
from tests.signaling.live import on, signaling, sockets, url
from tests.signaling.peerjs import SECRET, net


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A second instead of five."""
    monkeypatch.setattr("signaling.peerjs.PATIENCE", 1.0)


@pytest.mark.parametrize("kind", ["OFFER", "ANSWER", "CANDIDATE", "LEAVE"])
async def test_a_frame_reaches_the_other_as_it_was_and_from_whom_it_is(broker, kind):
    async with net(broker) as nodes:
        ada, bob = await nodes.open("ada"), await nodes.open("bob", 1)
        payload = {"sdp": "v=0\r\n", "connectionId": "dc_1", "nested": [1, None, "ü"]}
        await ada.say(kind, "bob", payload, src="mallory")
        assert await bob.hear() == {"type": kind, "src": "ada", "dst": "bob", "payload": payload}
        await bob.say(kind, "ada", payload)
        assert (await ada.hear())["src"] == "bob"


async def test_frames_keep_their_order_also_those_that_wait(broker):
    async with net(broker) as nodes:
        ada = await nodes.open("ada")
        for number in range(20):
            await ada.say("CANDIDATE", "bob", number)
        await asyncio.sleep(0.1)
        bob = await nodes.open("bob", 1)
        for number in range(20, 40):
            await ada.say("CANDIDATE", "bob", number)
        assert [(await bob.hear())["payload"] for _ in range(40)] == list(range(40))


async def test_who_stays_away_is_said_once_after_a_while(broker):
    async with net(broker) as nodes:
        ada = await nodes.open("ada")
        began = time.monotonic()
        await ada.say("OFFER", "nobody", {})
        await ada.say("CANDIDATE", "nobody", {})
        await ada.say("LEAVE", "nobody")
        expected = {"type": "EXPIRE", "src": "nobody", "dst": "ada"}
        assert await ada.hear(within=PATIENCE) == expected
        assert time.monotonic() - began > 0.9
        await ada.silent()


async def test_a_peer_that_has_left_is_not_there_and_its_id_is_free(broker):
    async with net(broker) as nodes:
        bob = await nodes.open("bob", 1)
        await bob.ws.close()
        again = await nodes.open("bob", token="another")
        ada = await nodes.open("ada")
        await ada.say("OFFER", "bob", 1)
        assert (await again.hear())["payload"] == 1


async def test_an_id_is_taken_by_whoever_has_its_token(broker):
    async with net(broker) as nodes:
        ada = await nodes.open("ada", token="hers")
        thief = await nodes.connect("ada", 1, token="his")
        assert await thief.hear() == {"type": "ID-TAKEN", "payload": {"msg": "ID is taken"}}
        assert await thief.closed() == 4503
        await ada.say("OFFER", "bob", 1)
        bob = await nodes.open("bob", 1)
        assert (await bob.hear())["src"] == "ada"


async def test_who_comes_back_elsewhere_gets_open_and_what_was_missed(broker):
    async with net(broker) as nodes:
        ada, bob = await nodes.open("ada"), await nodes.open("bob")
        await ada.say("OFFER", "bob", "seen")
        assert (await bob.hear())["payload"] == "seen"
        bob.lose()
        await asyncio.sleep(0.1)
        await ada.say("CANDIDATE", "bob", "missed")
        again = await nodes.open("bob", 1)
        assert (await again.hear())["payload"] == "missed"
        await again.say("ANSWER", "ada", "done")
        assert (await ada.hear())["payload"] == "done"
        await again.silent()


async def test_a_second_socket_with_the_token_takes_over_from_the_first(broker):
    async with net(broker) as nodes:
        ada, first = await nodes.open("ada"), await nodes.open("bob")
        second = await nodes.open("bob", 1)
        assert await first.closed() == 4501
        await ada.say("OFFER", "bob", 1)
        assert (await second.hear())["payload"] == 1


async def test_a_lost_peer_that_stays_away_expires(broker):
    async with net(broker) as nodes:
        ada, bob = await nodes.open("ada"), await nodes.open("bob", 1)
        bob.lose()
        await asyncio.sleep(0.2)
        await ada.say("OFFER", "bob", 1)
        assert (await ada.hear(within=PATIENCE))["type"] == "EXPIRE"


async def test_more_frames_at_once_than_the_limit_are_slowed_down_and_none_is_lost():
    async with net(max_messages_per_second=200, max_message_burst=10) as nodes:
        ada, bob = await nodes.open("ada"), await nodes.open("bob")
        began = time.monotonic()
        for number in range(50):
            await ada.say("CANDIDATE", "bob", number)
        assert [(await bob.hear())["payload"] for _ in range(50)] == list(range(50))
        assert time.monotonic() - began > 0.15


async def test_events_are_acknowledged_for_a_client_that_does_not():
    async with net(max_queued_messages=10) as nodes:
        ada, bob = await nodes.open("ada"), await nodes.open("bob")
        for number in range(60):
            await ada.say("CANDIDATE", "bob", number)
            assert (await bob.hear())["payload"] == number


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "{}", '{"type":7}', '{"type":"HEARTBEAT"}', '{"type":"OFFER"}',
     '{"type":"X","dst":"ada"}', '{"type":"OFFER","dst":9}', "[" * 9000, '{"type":"LEAVE"}',
     '{"type":"OPEN","dst":"ada"}', '{"type":"ID-TAKEN","dst":"ada"}'],
)  # fmt: skip
async def test_what_is_no_message_is_passed_over(text):
    async with net() as nodes:
        ada = await nodes.open("ada")
        bob = await nodes.open("bob")
        await bob.ws.send_str(text)
        await bob.say("OFFER", "ada", "after")
        assert await ada.hear() == {
            "type": "OFFER", "src": "bob", "dst": "ada", "payload": "after",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"key": "other"}, "INVALID-KEY"),
        ({"key": ""}, "INVALID-KEY"),
        ({"name": ""}, "ERROR"),
        ({"token": ""}, "ERROR"),
        ({"name": "-ada"}, "ERROR"),
        ({"name": "a" * 65}, "ERROR"),
        ({"name": "a\nb"}, "ERROR"),
        ({"token": "t" * 4097}, "ERROR"),
    ],
)
async def test_who_may_not_come_in_is_told_why(options, kind):
    async with net() as nodes:
        wire = await nodes.connect(**{"name": "ada", **options})
        answer = await wire.hear()
        assert answer["type"] == kind
        assert answer["payload"]["msg"]
        assert await wire.closed() == 4503


async def test_the_http_side():
    async with net(allowed_origins=["https://app.example.org"]) as nodes:
        ids = set()
        for path in ("/peerjs/peerjs/id?ts=1&version=1.5.5", "/peerjs/id"):
            status, text, headers = await nodes.get(path, Origin="https://app.example.org")
            assert status == 200
            assert peerjs.is_id(text)
            assert headers["Access-Control-Allow-Origin"] == "https://app.example.org"
            ids.add(text)
        assert len(ids) == 2
        assert (await nodes.get("/peerjs/other/id"))[0] == 401
        assert (await nodes.get("/peerjs/peerjs/id", Origin="https://evil.example"))[0] == 403
        assert (await nodes.get("/peerjs/peerjs/peers"))[0] == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await nodes.http.ws_connect(
                url(nodes.nodes[0], "/peerjs?key=peerjs&id=a&token=t"),
                origin="https://evil.example",
            )
        assert refused.value.status == 403


async def test_it_is_off_unless_it_is_asked_for():
    async with net(peerjs_key="k") as nodes, signaling() as off:
        for path in ("/peerjs", "/peerjs/peerjs", "/peerjs/peerjs/id", "/peerjs/id"):
            async with nodes.http.get(url(off, path)) as response:
                assert response.status == 404


async def test_everyone_is_listed_where_that_is_allowed(broker):
    async with net(broker, peerjs_discovery=True) as nodes:
        await nodes.open("ada")
        await nodes.open("bob b", len(nodes.nodes) - 1)
        status, text, _ = await nodes.get("/peerjs/peerjs/peers")
        assert status == 200
        assert sorted(json.loads(text)) == ["ada", "bob b"]


async def test_peerjs_and_our_own_clients_do_not_see_each_other(broker):
    async with net(broker, token_secret=SECRET) as nodes, sockets(nodes.nodes[-1]) as connect:
        claims = {"room": "r", "exp": time.time() + 60, "capacity": 3}
        token = Tokens([SECRET]).mint(claims)
        native = await connect()
        me = (await native.hello(token=token))["peer"]
        assert (await native.join("r"))["peers"] == []
        ada = await nodes.open("ada", token=token)
        bob = await nodes.open("bob", token=token)
        hidden = peerjs.name_of("r", "ada")
        await native.say(type="signal", id="1", to=hidden, candidate=None)
        assert (await native.hear())["code"] == "not_found"
        await native.say(type="message", id="2", data="all")
        assert (await native.hear())["type"] == "ok"
        await ada.say("OFFER", me, 1)
        await ada.say("OFFER", "bob", 2)
        assert (await bob.hear())["payload"] == 2
        resume = {"session": hidden, "secret": token, "seq": 0}
        other = await connect()
        assert (await other.hello(token=token, resume=resume))["resumed"] is False
        # The room has its capacity, whoever is in it.
        full = await nodes.connect("carl", token=token)
        assert (await full.hear())["payload"]["msg"] == "the room is full"


async def test_where_tokens_are_asked_for_the_client_s_token_is_one_of_ours(broker):
    async with net(broker, token_secret=SECRET, peerjs_discovery=True) as nodes:

        def token(room, **claims):
            return Tokens([SECRET]).mint({"room": room, "exp": time.time() + 60, **claims})

        for bad in ("", "random", token("r", canPublish=False), token("r", exp=1)):
            wire = await nodes.connect("ada", token=bad)
            assert (await wire.hear())["type"] == "ERROR"
            assert await wire.closed() == 4503
        ada = await nodes.open("ada", token=token("r"))
        bob = await nodes.open("bob", 1, token=token("r", name="x"))
        elsewhere = await nodes.open("ada", token=token("other"))
        await bob.say("OFFER", "ada", 1)
        assert (await ada.hear())["payload"] == 1
        await elsewhere.silent()
        path = f"/peerjs/peerjs/peers?token={token('other')}"
        assert json.loads((await nodes.get(path))[1]) == ["ada"]
        assert (await nodes.get("/peerjs/peerjs/peers"))[0] == 401


async def test_one_user_has_so_many_sockets_and_no_more():
    async with net(token_secret=SECRET, max_connections_per_user=1) as nodes:
        claims = {"room": "r", "sub": "ada", "exp": time.time() + 60}
        token = Tokens([SECRET]).mint(claims)
        ada = await nodes.open("one", token=token)
        other = await nodes.connect("two", token=token)
        assert (await other.hear())["type"] == "ERROR"
        assert await other.closed() == 4508
        again = await nodes.open("one", token=token)
        assert await ada.closed() == 4501
        await again.ws.close()
        await until(lambda: not nodes.nodes[0]._hub._holders)
        await nodes.open("two", token=token)


async def test_a_user_comes_back_with_a_newer_token_of_its_own(broker):
    async with net(broker, token_secret=SECRET) as nodes:

        def token(subject, exp):
            claims = {"room": "r", "sub": subject, "exp": time.time() + exp}
            return Tokens([SECRET]).mint(claims)

        ada = await nodes.open("ada", token=token("u1", 60))
        ada.lose()
        other = await nodes.connect("ada", 1, token=token("u2", 60))
        assert (await other.hear())["type"] == "ID-TAKEN"
        await nodes.open("ada", 1, token=token("u1", 90))


async def test_a_node_that_drains_sends_its_clients_away():
    async with net() as nodes:
        ada = await nodes.open("ada")
        nodes.nodes[0]._hub.drain(0.5)
        assert await ada.closed() == 4000
        await asyncio.sleep(0.05)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await nodes.connect("ada")


async def test_while_redis_is_away_clients_may_come_back(server, tmp_path):
    with redis_server(tmp_path / "own") as own:
        async with net(on(own)) as nodes:
            ada = await nodes.open("ada")
            own.kill()
            await until(lambda: not (nodes.nodes[0]._broker.is_up()))
            wire = await nodes.connect("bob")
            assert await wire.closed() == 4004
            await ada.say("OFFER", "bob", 1)
            assert (await ada.hear(within=PATIENCE))["type"] == "EXPIRE"


async def test_what_waits_is_bounded():
    async with net(max_messages_per_second=1000, max_message_burst=1000) as nodes:
        ada = await nodes.open("ada")
        for number in range(257):
            await ada.say("CANDIDATE", f"p{number}", 1)
        assert await ada.hear() == {"type": "EXPIRE", "src": "p256", "dst": "ada"}


async def test_a_name_that_nobody_may_have_waits_for_nobody():
    """What waits is bounded by its payload: names of a message's length would be beside that."""
    async with net() as nodes:
        ada = await nodes.open("ada")
        await ada.say("OFFER", "x" * 65, 1)
        await until(lambda: nodes.nodes[0].stats.dropped["bad_message"] == 1)


async def test_what_waits_is_bounded_in_bytes_too():
    """Sixteen megabytes for each client that calls nobody would be too much."""
    async with net(max_messages_per_second=1000, max_message_burst=1000) as nodes:
        ada = await nodes.open("ada")
        for number in range(18):
            await ada.say("OFFER", f"p{number}", "x" * 60_000)
        assert await ada.hear() == {"type": "EXPIRE", "src": "p17", "dst": "ada"}


async def test_who_is_not_there_is_not_looked_for_without_end(monkeypatch):
    """A message to nobody is tried a few times: each try is a script that Redis runs."""
    async with net() as nodes:
        (node, *_) = nodes.nodes
        tried, send = [], node._broker.send

        async def count(*arguments, **options):
            tried.append(arguments[1])
            return await send(*arguments, **options)

        monkeypatch.setattr(node._broker, "send", count)
        ada = await nodes.open("ada")
        await ada.say("OFFER", "nobody", 1)
        assert (await ada.hear(within=2 * PATIENCE))["type"] == "EXPIRE"
        assert 3 <= len(tried) <= 9
