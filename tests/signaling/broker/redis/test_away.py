"""Answers and wake-ups that do not come, and a Redis that is away."""

import asyncio
import itertools
from contextlib import suppress

import pytest

from config.redis import parse_redis_url
from signaling.broker import link
from signaling.broker.base import NotThere, SessionOver, Unavailable
from signaling.broker.lease import LOOKS, _patiently
from signaling.broker.primary import Finder
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from tests.patience import PATIENCE, until
from tests.redis_server import RedisServer, redis_server
from tests.signaling.broker.redis.nodes import field, taken_for_dead
from tests.signaling.broker.worlds import Ear, begin, message, redis_broker

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
