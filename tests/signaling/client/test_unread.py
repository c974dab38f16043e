"""Events that an application does not take: so many wait, and what is not kept is told."""

import asyncio
from typing import Any

from signaling.client.unread import Unread


def event(number: int) -> dict[str, Any]:
    """One that can be told from the others."""
    return {"type": "message", "data": number}


async def taken(unread: Unread, count: int) -> list[Any]:
    """So many events: the number of each, or ("lost", how many)."""
    events = [await unread.get() for _ in range(count)]
    return [("lost", e["count"]) if e["type"] == "lost" else e["data"] for e in events if e]


async def test_events_come_in_order():
    unread = Unread()
    for number in range(3):
        unread.put(event(number))
    assert await taken(unread, 3) == [0, 1, 2]


async def test_what_is_over_the_limit_is_counted_in_its_place():
    unread = Unread(most_events=2)
    for number in range(5):
        unread.put(event(number))
    assert await taken(unread, 1) == [0]
    unread.put(event(5))  # there is the news of the loss, and so no room yet
    assert await taken(unread, 2) == [1, ("lost", 4)]
    for number in (6, 7, 8):
        unread.put(event(number))
    assert await taken(unread, 3) == [6, 7, ("lost", 1)]


async def test_bytes_count_too_until_they_are_taken():
    unread = Unread(most_bytes=100)
    unread.put(event(0), 60)
    unread.put(event(1), 60)
    assert await taken(unread, 2) == [0, ("lost", 1)]
    unread.put(event(2), 60)
    unread.put(event(3), 40)
    assert await taken(unread, 2) == [2, 3]


async def test_who_waits_gets_the_next_and_everyone_hears_of_the_end():
    unread = Unread()
    waiting = [asyncio.ensure_future(unread.get()) for _ in range(3)]
    await asyncio.sleep(0)
    unread.put(event(0))
    await asyncio.sleep(0)
    unread.end()
    assert sorted(map(str, await asyncio.gather(*waiting))) == ["None", "None", str(event(0))]
    assert await unread.get() is None


async def test_what_came_before_the_end_can_still_be_taken():
    unread = Unread()
    unread.put(event(0))
    unread.end()
    assert await taken(unread, 1) == [0]
    assert await unread.get() is None


async def test_what_is_held_comes_after_what_it_is_released_with():
    unread = Unread()
    unread.put(event(0))
    unread.hold()
    unread.put(event(1), 10)
    unread.put({"type": "peer", "data": "of a session that is lost again"}, 10)
    unread.hold()
    unread.put({"type": "peer", "data": 2}, 10)
    assert await taken(unread, 1) == [0]
    unread.release({"type": "restarted", "data": "first"})
    unread.put(event(3))
    assert await taken(unread, 4) == ["first", 1, 2, 3]


async def test_what_is_held_at_the_end_is_not_lost():
    unread = Unread()
    unread.hold()
    unread.put(event(0))
    unread.end()
    assert await taken(unread, 1) == [0]
    assert await unread.get() is None
