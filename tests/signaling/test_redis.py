"""What only a broker with a network has to stand: nodes and a Redis that die, sleep and return."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio.connection import Connection

from config.redis import parse_redis_url
from config.schema import RedisSettings
from signaling.broker import link
from signaling.broker.base import NotThere, Revocation, SessionOver, Unavailable
from signaling.broker.lease import LOOKS, _patiently
from signaling.broker.primary import Finder
from signaling.broker.redis import RedisBroker
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from signaling.revocations import RevocationWatch
from tests.patience import PATIENCE, until
from tests.redis_server import RedisServer, redis_server
from tests.signaling.live import on, signaling
from tests.signaling.worlds import Ear, begin, message, redis_broker, redis_world

LEASE = 2.0
"""Seconds; short, so that the tests are, but longer than this machine may be busy otherwise."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One Redis for the tests that leave it alone."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path):
    """A Redis that a test may hurt."""
    with redis_server(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def world(server):
    """Two nodes, and nothing of the test before."""
    server.client.flushdb()
    async with redis_world(server, lease=LEASE) as made:
        yield made


@pytest.fixture
async def own_world(own_server):
    """Two nodes whose Redis a test may hurt."""
    async with redis_world(own_server, lease=LEASE) as made:
        yield made


def field(server: RedisServer, session: str, name: str) -> bytes:
    """A field of a session, as Redis has it."""
    (key,) = server.client.keys(f"*:s:{session}")
    value: Any = server.client.hget(key, name)
    return bytes(value)


def expire_lease(server: RedisServer, node: str) -> None:
    """As if a node had not been heard of for long."""
    for key in server.client.keys("*:n"):
        if server.client.zscore(key, node) is not None:
            server.client.zadd(key, {node: 1})


@asynccontextmanager
async def taken_for_dead(
    server: RedisServer, node: RedisBroker, by: RedisBroker, session: str
) -> AsyncIterator[None]:
    """A node is not heard of for long: another one suspends its sessions. Then it is back."""
    back, real = asyncio.Event(), node._link.call

    async def silent(script: str, *arguments: Any) -> Any:
        if script == "enlist":
            await back.wait()
        return await real(script, *arguments)

    node._link.call = silent  # type: ignore[method-assign]
    while field(server, session, "owner") != b"":  # a renewal may have been on its way
        expire_lease(server, node.node)
        await by.reap(0)
    yield
    node._link.call = real  # type: ignore[method-assign]
    back.set()


async def die(broker):
    """End a node as a crash does: nothing is told to anybody."""
    await broker._link.stop()


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


# Dead nodes ------------------------------------------------------------------------------------


async def test_the_peers_of_a_dead_node_are_suspended_and_leave_once(world):
    await begin(world.one, "a", "r", resume_window=0.5)
    await begin(world.two, "b", "r")
    await begin(world.one, "c", "r", resume_window=60)
    await world.settle()
    await die(world.one)
    world.nodes = (world.two,)
    began = time.monotonic()

    async def told(count):
        while len(await world.presence("b")) < count:
            await asyncio.gather(world.two.reap(0), world.two.reap(0))
            await asyncio.sleep(0.05)

    await asyncio.wait_for(told(3), PATIENCE)
    assert time.monotonic() - began > LEASE / 2
    await asyncio.wait_for(told(4), PATIENCE)
    await world.two.reap(0)
    assert await world.presence("b") == ["join", "suspended", "suspended", "leave"]
    assert await world.two.resume("c", b"c", 0) is not None
    assert (await world.presence("b"))[-1] == "resumed"


async def test_many_sessions_of_a_dead_node_are_reaped_in_steps(world, server):
    for number in range(130):
        await begin(world.one, f"s{number}", f"room {number % 40}", resume_window=0.2)
    await begin(world.two, "b", "room 0")
    await die(world.one)
    world.nodes = (world.two,)
    expire_lease(server, world.one.node)
    ended = await world.two.reap(0)
    await asyncio.sleep(0.25)
    assert ended + await world.two.reap(0) == 130
    presence = await world.presence("b")
    assert (presence.count("suspended"), presence.count("leave")) == (4, 4)


async def test_a_node_that_was_away_takes_back_what_nobody_took(world, server):
    await begin(world.one, "a", "r")
    await begin(world.one, "c", "r")
    await begin(world.two, "b", "r")
    await world.settle()
    async with taken_for_dead(server, world.one, world.two, "a"):
        await world.two.resume("c", b"c", 1)
        assert await world.two.send("b", "peer-a", message("meanwhile")) is False
    await until(lambda: world.one.is_up() and field(server, "a", "owner") != b"")
    assert await world.presence("b") == ["suspended", "suspended", "resumed", "resumed"]
    assert ("message", "meanwhile") in [event[:2] for event in await world.heard("a")]
    assert await world.one.send("a", "peer-b", message("back")) is True
    assert ("c", CloseCode.REPLACED) in world.ear.cuts or (
        "c", CloseCode.SESSION_OVER,
    ) in world.ear.cuts  # fmt: skip


async def test_a_node_keeps_its_lease_while_it_puts_much_right(world, server):
    """Else others would take it for dead again, and it would never come to an end."""
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    call = world.one._link.call
    renewals: list[str] = []

    async def slow(script, *arguments):
        if script == "attach":
            renewals.clear()
            await until(lambda: len(renewals) > 2)
        elif script == "enlist":
            renewals.append(script)
        return await call(script, *arguments)

    async with taken_for_dead(server, world.one, world.two, "a"):
        pass
    world.one._link.call = slow
    await until(lambda: world.one.is_up() and field(server, "a", "owner") != b"")
    assert await world.presence("b") == ["suspended", "resumed"]


async def test_a_socket_that_is_lost_while_its_session_is_taken_back_is_told_of(world, server):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    call = world.one._link.call

    async def slow(script, *arguments):
        taken_back = script == "attach" and field(server, "a", "owner") == b""
        reply = await call(script, *arguments)
        if taken_back:
            await world.one.suspend("a", 0)
        return reply

    world.one._link.call = slow
    async with taken_for_dead(server, world.one, world.two, "a"):
        pass
    await until(lambda: "a" not in world.one._attached)
    assert await world.presence("b") == ["suspended", "resumed", "suspended"]
    assert field(server, "a", "owner") == b""


@pytest.mark.parametrize("why", ["resume", "lease"])
async def test_who_was_overtaken_before_its_answer_came_is_cut(world, server, why):
    """A client that dials twice comes to two nodes at once: one socket stays, not two."""
    await begin(world.one, "a", "r")
    call = world.one._link.call

    async def slow(script, *arguments):
        reply = await call(script, *arguments)
        if script == "attach":
            assert await world.two.resume("a", b"a", None)
            await call("enlist", 8000)
            await asyncio.sleep(0.1)  # by now this node has been told, of what it does not know yet
        return reply

    world.one._link.call = slow
    if why == "lease":
        async with taken_for_dead(server, world.one, world.two, "a"):
            pass
    else:
        await world.one.suspend("a", 0)
        assert await world.one.resume("a", b"a", None)
    await until(lambda: ("a", CloseCode.REPLACED) in world.ear.cuts)
    assert "a" not in world.one._attached
    assert "a" in world.two._attached
    assert not world.one._sessions.coming


async def test_a_session_that_is_let_go_of_while_it_is_taken_back_is_given_back(world, server):
    """An answer from before the lease ended says that it is another's."""
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    real = world.one._link.call

    async def slow(script, *arguments):
        reply = await real(script, *arguments)
        if script == "attach":
            world.one._sessions.gone(world.one._attached["a"])
        return reply

    world.one._link.call = slow
    await world.one._lease.put_right()
    world.one._link.call = real
    assert field(server, "a", "owner") == b""
    assert await world.presence("b") == ["suspended"]


async def test_a_connection_that_is_reset_while_it_is_written_to_is_no_fault_of_ours(
    world, monkeypatch, capsys
):
    await begin(world.one, "a")

    async def closed(*_, **__):
        monkeypatch.undo()
        raise RuntimeError("the handler is closed")  # uvloop's word for it, in a rare moment

    monkeypatch.setattr(Connection, "send_packed_command", closed)
    with pytest.raises(Unavailable):
        await world.one.join("a", "r", NULL, 8)
    await until(world.one.is_up)
    written = capsys.readouterr().out
    assert "redis is away" in written
    assert "Traceback" not in written


async def test_a_node_that_stops_lets_go_at_once(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.one.stop()
    world.nodes = (world.two,)
    assert await world.presence("b") == ["suspended"]


# Answers that do not come ----------------------------------------------------------------------


async def test_what_is_missed_by_a_wake_up_is_read_from_the_mailbox(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    hear = world.two._link._on_wake
    world.two._link._on_wake = lambda data: None if data[:1] == b"e" else hear(data)
    for number in range(3):
        await world.one.send("a", "peer-b", message(number))
    await world.two.renew()
    world.two._link._on_wake = hear
    await world.one.send("a", "peer-b", message(3))
    await until(lambda: len(world.ear.delivered) == 5)  # b's join, too
    assert await world.heard("b") == [("message", n, n + 1) for n in range(4)]


async def test_a_gap_that_could_not_be_read_is_read_later(world, server):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.settle()
    call = world.two._link.call

    async def slow(script, *arguments):
        taken_back = script == "attach" and field(server, "b", "owner") == b""
        reply = await call(script, *arguments)
        if taken_back:  # its answer comes after the wake-ups of what came after it
            await world.one.send("a", "peer-b", message("after"))
            await call("enlist", 1000)
            await asyncio.sleep(0.1)
        return reply

    world.two._link.call = slow
    async with taken_for_dead(server, world.two, world.one, "b"):
        await world.one.send("a", "peer-b", message("before"))
    await until(lambda: [n for n, *_ in world.ear.delivered].count("b") == 2)
    assert await world.heard("b") == [("message", "before", 1), ("message", "after", 2)]


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_a_lost_connection_loses_nothing(world, server, kind):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    done: list[int] = []
    last = 7
    for number in range(last + 1):
        if number in {2, 5}:
            server.client.client_kill_filter(_type=kind, skipme=True)
        while len(done) == number:
            try:
                await world.one.send("a", "peer-b", message(number), f"id {number}")
                done.append(number)
            except Unavailable:
                await asyncio.sleep(0.05)
        if number == 4:
            await until(world.two.is_up)
            await world.two.acknowledge("b", world.two._attached["b"].last)
    await until(lambda: world.one.is_up() and world.two.is_up())
    heard = await world.heard("b")
    assert [what for _, what, _ in heard] == done
    assert [seq for _, _, seq in heard] == [*range(1, last + 2)]
    assert world.ear.cuts == []


async def test_the_link_comes_back_at_whichever_step_of_a_send_it_ends(server, monkeypatch):
    # On Python 3.11 asyncio.wait_for swallows a cancellation that comes as what it waits for ends.
    monkeypatch.setattr(link, "LONGEST_DELAY", 0.01)
    lives = 0
    asked = []

    async def live():
        nonlocal lives
        lives += 1
        if lives == 12:
            await asyncio.Event().wait()
        asked.append(asyncio.ensure_future(made.call("enlist", 1000)))
        for _ in range(lives):
            await asyncio.sleep(0)
        raise Unavailable

    tag = "{test-link}"
    finder = Finder(parse_redis_url(server.url), tag, server.tls)
    made = link.Link(finder, tag, "node", (1, 1, 1000), lambda _: None, live)
    await made.start()
    await until(lambda: lives == 12)
    await made.stop()
    assert len(await asyncio.gather(*asked, return_exceptions=True)) == 11


async def test_what_does_not_hear_that_it_is_to_end_is_told_again():
    async def deaf() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def ends() -> None:
        raise Unavailable

    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await link._until_one_ends(deaf(), ends())


async def test_a_session_whose_taking_over_was_not_waited_for_does_not_hang(world, server):
    await begin(world.one, "a", "r")
    taking = asyncio.create_task(world.two.resume("a", b"a", 0))
    await asyncio.sleep(0)
    taking.cancel()
    await until(lambda: field(server, "a", "owner") == b"")
    assert await world.one.resume("a", b"a", 0) is not None


# Redis away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps_data", [True, False])
async def test_redis_restarts(own_world, own_server, keeps_data):
    world = own_world
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.one.send("a", "peer-b", message("before"))
    await world.settle()
    own_server.stop(save=keeps_data)
    await until(lambda: not world.one.is_up() and not world.two.is_up())
    with pytest.raises(Unavailable):
        await begin(world.one, "c", "r")
    with pytest.raises(Unavailable):
        await world.one.send("a", "peer-b", message("meanwhile"))
    own_server.start()
    await until(lambda: world.one.is_up() and world.two.is_up())
    # What was kept, and what was written last, may be two things: everyone begins anew.
    await until(lambda: len(world.ear.cuts) == 2)
    assert sorted(world.ear.cuts) == [(name, CloseCode.SESSION_OVER) for name in "ab"]
    assert await world.two.resume("b", b"b", 1) is None
    await begin(world.one, "d")
    assert await world.one.join("d", "r", NULL, 64) == []


async def test_redis_that_answers_nobody_is_away_and_comes_back_with_everything(
    own_world, own_server, monkeypatch
):
    monkeypatch.setattr("signaling.broker.lease.ANSWER", 0.5)
    world = own_world
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.one.suspend("a", 0)
    own_server.sleep()
    ends = asyncio.create_task(world.two.suspend("b", 0))  # nobody answers; it is made up for
    await until(lambda: not world.one.is_up() and not world.two.is_up())
    await ends
    own_server.wake()
    await until(lambda: world.one.is_up() and world.two.is_up())
    assert field(own_server, "b", "owner") == b""
    assert world.ear.cuts == []
    assert await world.one.resume("b", b"b", 0) is not None
    assert await world.two.resume("a", b"a", 1) is not None


async def test_the_lease_is_not_behind_all_that_a_node_has_to_ask(world, monkeypatch):
    monkeypatch.setattr("signaling.broker.link.MOST_ON_THE_WAY", 32)
    monkeypatch.setattr("signaling.broker.link.MOST_AT_ONCE", 8)
    link = world.one._link
    asked = [asyncio.ensure_future(world.one.quiet_names("r")) for _ in range(1000)]
    await asyncio.sleep(0)
    before = link.answers
    assert await link.call("enlist", 8000, link.run) == 1
    assert link.answers - before < 100
    assert not asked[-1].done()
    assert await asyncio.gather(*asked) == [[]] * 1000


async def test_redis_is_away_when_nothing_comes_and_not_when_much_does(monkeypatch):
    monkeypatch.setattr("signaling.broker.lease.ANSWER", LOOKS * 0.01)
    looks, come = itertools.count(), asyncio.Event()

    def more() -> int:
        number = next(looks)
        if number > 10 * LOOKS:
            come.set()
        return number

    assert await _patiently(come.wait(), more) is True
    with pytest.raises(TimeoutError):
        await _patiently(asyncio.Event().wait(), lambda: 7)


async def test_a_node_starts_while_redis_is_away_and_is_ready_when_it_comes(tmp_path):
    server = RedisServer(tmp_path / "redis")
    broker = redis_broker(server, "late")
    try:
        await asyncio.wait_for(broker.start(Ear()), PATIENCE)
        assert not broker.is_up()
        assert await broker.reap(0) == 0
        server.start()
        await until(broker.is_up)
        await begin(broker, "a", "r")
    finally:
        await broker.stop()
        server.close()


async def test_a_replica_is_not_relied_on(own_server, tmp_path, capsys):
    with redis_server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {own_server.port}") as other:
        broker = redis_broker(other, "replica")
        await broker.start(Ear())
        assert not broker.is_up()
        await broker.stop()
    assert "it is a replica; name the primary, or its Sentinels" in capsys.readouterr().out


async def test_at_its_memory_limit_redis_takes_nothing_new_and_lets_go_of_all(
    own_world, own_server
):
    world = own_world
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    own_server.client.config_set("maxmemory", 1)
    with pytest.raises(Unavailable):
        await world.one.send("a", "peer-b", message("hi"))
    with pytest.raises(Unavailable):
        await begin(world.one, "c")
    assert world.one.is_up()
    await world.one.renew()
    await world.one.suspend("a", 0)
    await world.two.close("b", "left")
    own_server.client.config_set("maxmemory", 0)
    with pytest.raises(SessionOver):
        await world.one.send("a", "peer-b", message("hi"))
    assert await world.one.resume("a", b"a", 1) is not None
    with pytest.raises(NotThere):
        await world.one.send("a", "peer-b", message("hi"))


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
