"""Nodes that die, are taken for dead, or end."""

import asyncio
import time

import pytest
from redis.asyncio.connection import Connection

from signaling.broker.base import Unavailable
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from tests.patience import PATIENCE, until
from tests.signaling.broker.redis.nodes import LEASE, die, expire_lease, field, taken_for_dead
from tests.signaling.broker.worlds import begin, message


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
