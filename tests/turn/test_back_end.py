"""A back end that says who clients are (``turn.user_url``): a real one, over HTTP."""

import asyncio
import base64
import hashlib
import json

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from tests.guides.guide import example
from tests.patience import until
from tests.receiver import SECRET, receiver
from tests.turn.asked import (
    allocate,
    asked,
    asking,
    asking_relay,
    challenged,
    code_of,
    hangs,
    knows,
)
from tests.turn.live import UDP, port_of, relay, settings
from tests.turn.secure import connected, everywhere
from turn.auth.ephemeral import mint
from turn.auth.nonce import COOKIE, Feature
from turn.codec import registry
from turn.codec.integrity import Integrity
from turn.codec.message import parse_untrusted
from turn.codec.registry import Method
from turn.routes import Transport

LIES = {
    "no JSON": web.Response(body=b"<html>"),
    "another shape": web.json_response(["pw"]),
    "nothing": web.json_response({}),
    "another type": web.json_response({"password": 7}),
    "a password that nobody can send": web.json_response({"password": "a\x00b"}),
    "half a key": web.json_response({"md5": "00ff"}),
    "no hex": web.json_response({"sha256": "no hex"}),
    "far too much": web.json_response({"password": "x" * 20_000}),
    "a redirect": web.Response(status=302, headers={"Location": "/hooks"}),
    "a fault": web.Response(status=500),
}


@pytest.fixture
async def back_end():
    async with receiver() as running:
        knows(running, alice="pw")
        yield running


@pytest.mark.parametrize("transport", Transport)
async def test_whom_it_knows_may_use_the_relay(back_end, tmp_path, transport):
    async with (
        asking_relay(back_end, **everywhere(tmp_path)) as service,
        connected(service, transport) as client,
    ):
        assert await allocate(client) == 0
        for method in (Method.REFRESH, Method.CREATE_PERMISSION, Method.REFRESH):
            assert code_of(await client.request(method)) in {0, 400}
        assert service.stats.user_decisions == {"allowed": 1}
    (message,) = back_end.got
    assert message == {
        "type": "user",
        "data": {
            "user": "alice", "realm": "icebroker", "client": "127.0.0.1",
            "transport": transport.value,
        },
    }  # fmt: skip
    shown = example("webhooks", "user")
    assert (shown.keys(), shown["data"].keys()) == (message.keys(), message["data"].keys())


async def test_it_is_signed_as_the_specification_s_library_verifies(back_end, client_of):
    secret = "whsec_" + "A" * 43 + "="
    async with asking_relay(back_end, webhook_secret=[SECRET, secret]) as service:
        assert await allocate(await client_of(service)) == 0
    ((headers, body),) = back_end.requests
    assert Webhook(secret).verify(body, headers) == json.loads(body)


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_whom_it_does_not_know_is_told_what_every_stranger_is(
    back_end, client_of, status, tcp
):
    back_end.says(status)
    replies = []
    async with asking_relay(back_end) as one, relay() as other:
        for service in (one, other):
            client = await client_of(service, "mallory", tcp=tcp)
            replies.append(await client.request(Method.ALLOCATE, UDP))
    for reply in replies:
        assert code_of(reply) == 401
        assert reply.integrity is Integrity.NONE
    assert {a.number for a in SHOWN if replies[0].has(a)} == {
        a.number for a in SHOWN if replies[1].has(a)
    }
    assert len(replies[0].raw) == len(replies[1].raw)


SHOWN = (registry.ERROR_CODE, registry.REALM, registry.NONCE, registry.PASSWORD_ALGORITHMS)


async def test_a_wrong_password_gets_nobody_in_and_is_not_a_user_s(back_end, client_of):
    async with asking_relay(back_end) as service:
        assert await allocate(await client_of(service, "alice", "guess")) == 401
        users = service._back_end.users
        assert (len(users._proved), len(users._named)) == (0, 1)
        assert await allocate(await client_of(service)) == 0
        assert (len(users._proved), len(users._named)) == (1, 0)


@pytest.mark.parametrize("kinds", [("md5",), ("md5", "sha256"), ("sha256",)])
async def test_it_may_keep_keys_in_place_of_passwords(back_end, client_of, kinds):
    text = b"alice:icebroker:pw"
    made = {"md5": hashlib.md5(text).hexdigest(), "sha256": hashlib.sha256(text).hexdigest()}
    back_end.says(**{kind: made[kind] for kind in kinds})
    async with asking_relay(back_end) as service:
        assert await allocate(await client_of(service)) == (0 if "md5" in kinds else 401)


async def test_who_has_no_key_of_that_kind_cannot_use_an_empty_one(back_end, client_of):
    back_end.says(sha256="00" * 32)
    async with asking_relay(back_end) as service:
        client = await client_of(service)
        client.key = b""
        assert await allocate(client) == 401


# How often it is asked ---------------------------------------------------------------------------


async def test_an_answer_holds_for_a_while_and_for_every_client_of_the_name(back_end, client_of):
    async with asking_relay(back_end) as service:
        for tcp in (False, True, False):
            assert await allocate(await client_of(service, tcp=tcp)) == 0
        assert asked(back_end) == ["alice"]
        for _ in range(3):
            assert await allocate(await client_of(service, "mallory")) == 401
        assert asked(back_end) == ["alice", "mallory"]
        assert service.stats.user_decisions == {"allowed": 1, "refused": 1}


async def test_without_a_memory_it_decides_each_allocation(back_end, client_of):
    async with asking_relay(back_end, user_cache=0) as service:
        one = await client_of(service)
        assert await allocate(one) == 0
        assert await allocate(await client_of(service)) == 0
        assert asked(back_end) == ["alice"] * 2
        back_end.says(403)
        assert await allocate(await client_of(service)) == 401
        assert code_of(await one.request(Method.REFRESH)) == 0
        assert asked(back_end) == ["alice"] * 3
        assert await allocate(one) == 401, "what it has begins nothing more"


async def test_a_retransmission_asks_nothing_and_gets_the_same_reply(back_end, client_of):
    go_on = hangs(back_end)
    async with asking_relay(back_end) as service:
        client = await challenged(await client_of(service))
        request = client.encode(Method.ALLOCATE, UDP)
        for _ in range(5):
            await client.send(request)
        await until(lambda: service.stats.requests["allocate", "udp"] == 6)
        await until(lambda: back_end.got)
        assert service._back_end._in_all == 1
        go_on.set()
        reply = await client.receive()
        assert code_of(parse_untrusted(reply)) == 0
        await client.send(request)
        assert await client.receive() == reply
        with pytest.raises(TimeoutError):
            await client.receive(0.1)
        assert asked(back_end) == ["alice"]
        assert len(service._engine.table) == 1


async def test_whom_others_know_is_never_asked_about(back_end, client_of):
    secret = "the shared secret of the tests"
    turn = asking(back_end, users={"bob": "pw2"}, secret=[secret], user_cache=0)
    async with relay(**turn) as service:
        assert await allocate(await client_of(service, "bob", "pw2")) == 0
        assert await allocate(await client_of(service, "bob", "guess")) == 401
        assert await allocate(await client_of(service, *mint(secret, "eve", 4_000_000_000))) == 0
        assert await allocate(await client_of(service, *mint(secret, "eve", 1))) == 401
        assert back_end.got == []


# Where it does not answer ------------------------------------------------------------------------


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_no_answer_decides_nothing(back_end, client_of, lie):
    said = LIES[lie]

    async def answer(_):
        return web.Response(body=said.body, status=said.status, headers=said.headers)

    back_end.answer = answer
    async with asking_relay(back_end, user_cache=60) as service:
        over_udp = await challenged(await client_of(service))
        request = over_udp.encode(Method.ALLOCATE, UDP)
        await over_udp.send(request)
        assert await allocate(await client_of(service, tcp=True)) == 500
        await until(lambda: service.stats.user_decisions["failed"] == 2)
        knows(back_end, alice="pw")
        await over_udp.send(request)  # as clients do where they hear nothing
        assert code_of(parse_untrusted(await over_udp.receive())) == 0
        assert service.stats.user_decisions == {"failed": 2, "allowed": 1}


async def test_one_that_hangs_is_left_in_time(back_end, client_of):
    go_on = hangs(back_end)
    async with asking_relay(back_end, webhook_timeout=0.2) as service:
        assert await allocate(await client_of(service, tcp=True)) == 500
        go_on.set()
        assert await allocate(await client_of(service, tcp=True)) == 0


async def test_what_lives_goes_on_without_it(back_end, client_of):
    """Also where nothing is remembered of who has proved what: after a reload, with a new nonce."""
    async with asking_relay(back_end, user_cache=0) as service:
        clients = [await client_of(service, tcp=tcp) for tcp in (False, True)]
        for client in clients:
            assert await allocate(client) == 0
        back_end.says(500)
        count = len(back_end.got)
        for client in clients:
            for _ in range(2):
                service.reload(settings(**asking(back_end, user_cache=0)))
                client.nonce = None
                assert code_of(await client.request(Method.REFRESH)) == 0
        assert len(back_end.got) == count
        clients[0].key = b"another key, which is not alice's"
        assert code_of(await clients[0].request(Method.REFRESH)) == 401


async def test_whose_connection_has_ended_keeps_no_allocation(back_end, client_of):
    """That a client has closed is not seen before its connection is read again."""
    go_on = hangs(back_end)
    async with asking_relay(back_end, webhook_timeout=60) as service:
        client = await challenged(await client_of(service, tcp=True))
        await client.send(client.encode(Method.ALLOCATE, UDP))
        await until(lambda: back_end.got)
        client.close()
        go_on.set()
        await until(lambda: service.stats.user_decisions["allowed"])
        await until(lambda: not service._listeners._streams[0].connections)
        assert (len(service._engine.table), service.ports_in_use) == (0, 0)


async def test_for_whom_the_relay_has_ended_the_connection_nothing_begins(back_end, client_of):
    go_on = hangs(back_end)
    async with asking_relay(back_end, webhook_timeout=60) as service:
        client = await challenged(await client_of(service, tcp=True))
        await client.send(client.encode(Method.ALLOCATE, UDP))
        await until(lambda: back_end.got)
        connections = service._listeners._streams[0].connections
        (connection,) = connections
        connection.abort()
        await until(lambda: not connections)
        go_on.set()
        await until(lambda: not service._back_end._questions)
        assert service.stats.allocations_created.total() == 0


async def test_a_relay_that_stops_waits_for_nobody(back_end, client_of):
    hangs(back_end)
    async with asking_relay(back_end) as service:
        client = await challenged(await client_of(service))
        await client.send(client.encode(Method.ALLOCATE, UDP))
        await until(lambda: back_end.got)
        async with asyncio.timeout(2):
            await service.stop()


# Reloads -----------------------------------------------------------------------------------------


async def test_a_reload_has_another_one_asked_or_nobody(back_end, client_of):
    async with asking_relay(back_end) as service, receiver() as other:
        assert await allocate(await client_of(service)) == 0
        other.says(404)
        service.reload(settings(**asking(other)))
        assert await allocate(await client_of(service)) == 401
        assert asked(other) == ["alice"]
        service.reload(settings(**asking(other, user_url="")))
        assert await allocate(await client_of(service)) == 401
        service.reload(settings(**asking(back_end)))
        assert await allocate(await client_of(service)) == 0
    assert (len(back_end.got), len(other.got)) == (2, 1)


async def test_a_reload_lets_no_answer_hold_for_longer_than_it_says(back_end, client_of):
    async with asking_relay(back_end, user_cache=3600) as service:
        assert await allocate(await client_of(service)) == 0
        back_end.says(404)
        service.reload(settings(**asking(back_end, user_cache=7200)))
        assert await allocate(await client_of(service)) == 0
        service.reload(settings(**asking(back_end, user_cache=0)))
        assert await allocate(await client_of(service)) == 401
    assert asked(back_end) == ["alice"] * 2


async def test_names_are_not_hidden_where_it_is_asked(back_end, client_of):
    """A hash can only be looked up among names that are known beforehand."""
    static = {"alice": "pw"}
    for turn, anonymous in (({"users": static}, True), (asking(back_end, users=static), False)):
        async with relay(**turn) as service:
            client = await challenged(await client_of(service))
            shown = str(client.nonce)[len(COOKIE) :][:4]
            offered = Feature(int.from_bytes(base64.b64decode(shown)))
            assert bool(offered & Feature.USERNAME_ANONYMITY) == anonymous


async def test_what_outlives_the_process_goes_on_without_it_too(back_end, client_of, tmp_path):
    turn = asking(back_end, user_cache=0, state_directory=str(tmp_path))
    turn |= {"listen": [], "listen_udp": ["127.0.0.1:0"]}
    async with relay(**turn) as first:
        client = await client_of(first)
        assert await allocate(client) == 0
        turn["listen_udp"] = [f"127.0.0.1:{port_of(first)}"]
        await first.leave()
    back_end.says(500)
    async with relay(**turn) as second:
        client.nonce = None
        assert code_of(await client.request(Method.REFRESH)) == 0
        assert len(second._engine.table) == 1
    assert asked(back_end) == ["alice"]


async def test_no_name_of_the_back_ends_is_a_tenants_user(back_end, client_of):
    """Its users may call themselves what they like; and it is not asked about a tenant's."""
    knows(back_end, **{"shop/ada": "pw", "1:shop/ada": "pw", "shed/ada": "pw", "shop": "pw"})
    tenants = {"shop": {"users": {"eve": "pw"}}}
    async with asking_relay(back_end, tenants=tenants) as service:
        names = ("shop/ada", "1:shop/ada", "shed/ada", "shop", "shop/eve")
        codes = [await allocate(await client_of(service, name)) for name in names]
        owners = [allocation.owner for allocation in service._engine.table]
    assert codes == [401, 401, 0, 0, 0]
    assert [(owner.user, owner.tenant) for owner in owners] == [
        ("shed/ada", ""), ("shop", ""), ("shop/eve", "shop"),
    ]  # fmt: skip
    assert asked(back_end) == ["shed/ada", "shop"]


async def test_no_user_of_the_back_ends_is_called_as_all_holders_of_tokens_are(back_end, client_of):
    name = ":relay.example.org"
    knows(back_end, **{name: "pw"})
    tokens = {"third_party_name": name[1:], "third_party_keys": {"kid": "A" * 43 + "="}}
    async with asking_relay(back_end, **tokens) as service:
        assert await allocate(await client_of(service, name)) == 401
    assert asked(back_end) == []


async def test_what_another_one_said_before_a_reload_lets_nobody_in(back_end, client_of):
    go_on = hangs(back_end)
    async with asking_relay(back_end) as service, receiver() as other:
        client = await challenged(await client_of(service))
        request = client.encode(Method.ALLOCATE, UDP)
        await client.send(request)
        await until(lambda: back_end.got)
        other.says(404)
        service.reload(settings(**asking(other)))
        go_on.set()
        await until(lambda: not service._back_end._questions)
        assert len(service._back_end.users) == 0
        await client.send(request)
        assert code_of(parse_untrusted(await client.receive())) in {401, 438}
        assert len(service._engine.table) == 0
