"""Sessions in Redis: their keys, who owns them, and what other nodes hear of them."""

import asyncio
import json
import time

import pytest
from pydantic import SecretStr

from config.schema import RedisSettings
from signaling.broker.base import NotThere, Revocation, SessionOver
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from signaling.revocations import RevocationWatch
from tests.patience import until
from tests.signaling.broker.redis.nodes import LEASE, field
from tests.signaling.broker.worlds import Ear, begin, message, redis_broker, redis_world
from tests.signaling.live import on, signaling

# Keys ------------------------------------------------------------------------------------------


async def test_every_key_ends_by_itself_and_has_the_prefix(own_world, own_server):
    world = own_world
    await begin(world.one, "a", "r", "s", resume_window=3600)
    await begin(world.two, "b", "r")
    await world.one.send("a", "peer-b", message("hi"), "id")
    await world.one.suspend("a", 0)
    await world.two.broadcast("b", message("hi"), "id")
    keys = own_server.every_key()
    assert len(keys) >= 10
    assert own_server.without_ttl() == []
    assert all(key.startswith(b"{test-") for key in keys)
    mailbox = next(key for key in keys if key.endswith(b":m:a"))
    assert own_server.client.ttl(mailbox) > 3600  # as long as its session may come back


async def test_nothing_of_a_session_is_left_when_it_ends(own_world, own_server):
    await begin(own_world.one, "a", "r")
    await begin(own_world.two, "b", "r")
    await own_world.one.send("a", "peer-b", message("hi"), "id")
    await own_world.one.close("a", "left")
    await own_world.two.close("b", "left")
    left = {key.rpartition(b":")[2].decode() for key in own_server.every_key()}
    assert left <= {"g", "h", "n", "x"}


async def test_keys_are_refreshed_while_a_session_lasts(own_world, own_server):
    await begin(own_world.one, "a", "r")
    for key in own_server.every_key():
        own_server.client.pexpire(key, 5000)
    await own_world.one._lease.refresh()
    await own_world.one.renew()
    assert all(own_server.client.ttl(key) > 100 for key in own_server.every_key())


# Owners ----------------------------------------------------------------------------------------


async def test_a_session_belongs_to_the_node_that_had_it_last(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    assert await world.two.resume("a", b"a", 1) is not None
    await world.settle()
    assert world.ear.cuts == [("a", CloseCode.REPLACED)]
    with pytest.raises(SessionOver):
        await world.one.send("a", "peer-b", message("too late"))
    await world.one.suspend("a", 0)
    await world.one.close("a", "left")
    assert await world.presence("b") == []
    assert await world.two.send("a", "peer-b", message("in time")) is True


async def test_what_a_node_says_that_slept_is_not_heard(world, server):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    attached = world.one._attached["a"]
    await world.two.resume("a", b"a", 1)
    world.one._attached["a"] = attached  # it was not told yet
    with pytest.raises(SessionOver):
        await world.one.send("a", "peer-b", message("a ghost's"))
    assert ("a", CloseCode.SESSION_OVER) in world.ear.cuts
    assert [kind for kind, *_ in await world.heard("b")] == []
    assert field(server, "a", "owner").decode() == f"{world.two.node}:2"


async def test_a_session_that_goes_to_and_fro_is_where_it_came_last(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    for number in range(10):
        node = (world.two, world.one)[number % 2]
        assert await node.resume("a", b"a", 1 if number == 0 else number) is not None
        await world.two.send("b", "peer-a", message(number))
        await world.settle()
    assert [what for kind, what, _ in await world.heard("a") if kind == "message"] == [*range(10)]
    await world.one.send("a", "peer-b", message("here"))


async def test_what_follows_on_a_join_is_not_heard_before_its_answer(world):
    await begin(world.two, "b", "r")
    await begin(world.one, "a")
    call = world.one._link.call

    async def slow(script, *arguments):
        reply = await call(script, *arguments)
        if script == "join":
            await world.two.leave("b", "r", "left")
            await world.settle()
        return reply

    world.one._link.call = slow
    peers = await world.one.join("a", "r", NULL, 64)
    assert [peer.id for peer in peers] == ["peer-b"]
    assert [name for name, *_ in world.ear.delivered] == ["b"]
    assert await world.presence("a") == ["leave"]


async def test_a_room_of_another_prefix_is_another_room(server, world):
    async with redis_world(server, lease=LEASE) as other:
        await begin(world.one, "a", "r")
        await begin(other.one, "b", "r")
        assert world.one.counts() == (1, 1)
        with pytest.raises(NotThere):
            await world.one.send("a", "peer-b", message("hi"))
        assert json.loads(json.dumps(await other.heard("b"))) == []


async def test_a_node_that_comes_later_hears_what_is_revoked(server):
    async with redis_world(server) as world:
        now = time.time()
        await world.one.revoke(Revocation("gone", now + 60, now + 30))
        await world.one.revoke(Revocation("gone", 0.0, now + 90))  # what held goes on holding
        await world.one.revoke(Revocation("kicked", 0.0, now + 90))
        await world.one.revoke(Revocation("over", now + 0.05, 0.0))
        await world.one.revoke(Revocation("restored", now + 60, 0.0))
        await world.one.revoke(Revocation("restored", 0.0, 0.0))
        await asyncio.sleep(0.1)
        ear = Ear()
        late = redis_broker(server, world.prefix)
        await late.start(ear)
        try:
            found = {word.user: (word.until > now, word.spent > now) for word in ear.revocations}
            assert found == {"gone": (True, True), "kicked": (False, True)}
            assert server.without_ttl() == []
        finally:
            await late.stop()


async def test_signaling_that_cannot_listen_leaves_nothing_running(server):
    redis = on(server)
    async with signaling(redis) as first:
        before = asyncio.all_tasks()
        with pytest.raises(OSError, match="cannot listen"):
            async with signaling(redis, listen=f"127.0.0.1:{first.addresses[0][1]}"):
                pass
        assert asyncio.all_tasks() == before


async def test_a_relay_that_revokes_tells_the_rooms_and_harms_nobody_in_them(server):
    async with redis_world(server, webhooks=True) as world:
        await begin(world.one, "a", "r")
        await begin(world.two, "b", "r", subject="u")
        await world.one.send("a", "peer-b", message("is in the mailbox"))
        await world.two.suspend("b", world.now)
        await world.settle()
        world.forget()
        heard: list[tuple[str, float, float]] = []
        redis_settings = RedisSettings(url=SecretStr(server.url), prefix=world.prefix)
        relay = RevocationWatch(redis_settings, lambda *told: heard.append(told))
        await relay.start()
        await relay.spread_revocation("u", time.time() + 60)
        assert await world.presence("a") == ["leave"]
        await until(lambda: heard)
        await relay.stop()
        assert world.ear.cuts == []
        assert await world.two.resume("a", b"a", 0) is not None  # nothing of it was broken
        events = [json.loads(one.event)["type"] for one in await world.one.take_events(99, 5)]
        assert events[-2:] == ["peer.suspended", "peer.left"]
