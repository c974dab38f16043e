"""What every broker tells: nodes of revocations, webhooks of rooms and peers."""

import asyncio
import json
import time

import pytest

from signaling.broker.base import (
    Revocation,
)
from tests.redis_sites import PREFIX
from tests.signaling.broker.worlds import WINDOW, begin, memory_world, quietly, redis_world

# Revocations -------------------------------------------------------------------------------------


async def test_who_is_revoked_ends_where_it_is_away_and_every_node_hears_it(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r", subject='u "1"')
    await begin(world.two, "c", "r", subject="u2")
    for away in "bc":
        await world.two.suspend(away, world.now)
    await world.settle()
    world.forget()
    word = Revocation('u "1"', time.time() + 60, time.time() + 30)
    await world.one.revoke(word)
    assert await world.presence("a") == ["leave"]
    assert await world.two.resume("b", b"b", 0) is None
    assert await world.two.resume("c", b"c", 0) is not None
    heard = world.ear.revocations
    assert len(heard) == (2 if world.one is not world.two else 1)
    for one in heard:
        assert one.user == word.user
        assert one.until == pytest.approx(word.until, abs=0.002)
        assert one.spent == pytest.approx(word.spent, abs=0.002)


async def test_who_is_restored_is_told_of_too(world):
    await world.one.revoke(Revocation("u", time.time() + 60, 0.0))
    await world.one.revoke(Revocation("u", 0.0, 0.0))
    await world.settle()
    assert world.ear.revocations[-1] == Revocation("u", 0.0, 0.0)


async def test_spent_credentials_do_not_lift_a_revocation(world):
    """An operator removes somebody's last peer after having revoked whom it belonged to."""
    until = round(time.time()) + 60.0
    await world.one.revoke(Revocation("u", until, 0.0))
    await world.one.revoke(Revocation("u", 0.0, until - 30))
    await world.settle()
    assert world.ear.revocations[-1] == Revocation("u", until, until - 30)
    await world.one.revoke(Revocation("other", 0.0, until - 30))
    await world.settle()
    assert world.ear.revocations[-1] == Revocation("other", 0.0, until - 30)


# What the webhooks are told ----------------------------------------------------------------------


@pytest.fixture
async def telling(site):
    """Two nodes that keep what happens for the webhooks."""
    if site is None:
        async with memory_world(webhooks=True) as made:
            yield made
    else:
        site.client.flushall()
        async with redis_world(site, PREFIX, webhooks=True) as made:
            yield made


def told(events):
    """(type, name, reason) of events."""
    found = [json.loads(event.event) for event in events]
    return [(e["type"], e["data"].get("name"), e["data"].get("reason")) for e in found]


async def test_what_happened_waits_until_somebody_was_told(telling):
    await begin(telling.one, "a", "r", subject="u")
    await quietly(telling.two, "q", "r")
    await telling.one.suspend("a", telling.now)
    telling.later(WINDOW + 1)
    await telling.reap()
    await telling.two.close("q", "left")
    first = await telling.two.take_events(3, lease=60)
    rest = await telling.one.take_events(99, lease=60)
    assert told(first + rest) == [
        ("room.opened", None, None),
        ("peer.joined", "a", ""),
        ("peer.joined", "q", ""),
        ("peer.suspended", "a", ""),
        ("peer.left", "a", "timeout"),
        ("peer.left", "q", "left"),
        ("room.closed", None, None),
    ]
    assert json.loads(first[1].event)["data"] == {
        "room": "r", "id": "peer-a", "name": "a", "meta": None, "user": "u", "reason": "",
    }  # fmt: skip
    assert await telling.one.take_events(99, lease=60) == []
    await telling.one.retry_event(first[0].id, 0.0)
    (again,) = await telling.two.take_events(99, lease=60)
    assert (again.id, again.tries, again.event) == (first[0].id, 2, first[0].event)
    await telling.two.end_events([event.id for event in first + rest])
    await telling.one.retry_event(again.id, 0.0)
    assert await telling.one.take_events(99, lease=60) == []


async def test_what_was_taken_by_a_node_that_died_is_due_again(telling):
    await begin(telling.one, "a", "r")
    assert len(await telling.one.take_events(99, lease=1.5)) == 2
    assert await telling.two.take_events(99, lease=60) == []
    await asyncio.sleep(1.6)
    assert [event.tries for event in await telling.two.take_events(99, lease=60)] == [2, 2]
