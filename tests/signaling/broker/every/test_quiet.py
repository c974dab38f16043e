"""What every broker guarantees of members that nobody is told of."""

import pytest

from signaling.broker.base import (
    NotThere,
    RoomFull,
    Taken,
)
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from tests.signaling.broker.worlds import begin, message, quietly


async def test_who_is_quiet_sees_and_is_seen_by_the_quiet_only(world):
    await begin(world.one, "a", "r")
    await quietly(world.one, "q", "r")
    await quietly(world.two, "p", "r")
    await begin(world.two, "b", "r")
    assert await world.one.join("a", "r", NULL, 64) != []
    assert [peer.id for peer in await world.one.join("a", "r", NULL, 64)] == ["peer-b"]
    assert await world.one.send("q", "peer-p", message("hush")) is True
    for sender, to in (("a", "peer-q"), ("q", "peer-a")):
        with pytest.raises(NotThere):
            await world.one.send(sender, to, message("hi"))
    await world.one.broadcast("a", message("all"))
    await world.two.close("p", "left")
    assert await world.heard("q") == []
    assert [what for _, what, _ in await world.heard("p")] == ["hush"]
    assert [what for _, what, _ in await world.heard("a")] == ["join"]
    assert await world.one.quiet_names("r") == ["q"]


async def test_the_quiet_count_where_a_room_has_a_capacity(world):
    await quietly(world.one, "q", "r")
    await begin(world.two, "a")
    with pytest.raises(RoomFull):
        await world.two.join("a", "r", NULL, 1)
    await world.one.close("q", "left")
    assert await world.two.join("a", "r", NULL, 1) == []
    assert await world.two.quiet_names("r") == []


async def test_a_name_is_one_session_s_and_free_again_after_it(world):
    await quietly(world.one, "q", "r")
    with pytest.raises(Taken):
        await quietly(world.two, "q", "r")
    await world.one.close("q", "left")
    await quietly(world.two, "q", "r")


async def test_whoever_does_not_know_what_it_saw_goes_on_after_what_was_acknowledged(world):
    await begin(world.one, "a", "r")
    await begin(world.one, "b", "r")
    for number in range(3):
        await world.one.send("a", "peer-b", message(number))
    await world.settle()
    await world.one.acknowledge("b", 2)
    await world.one.suspend("b", world.now)
    resumption = await world.two.resume("b", b"b", None)
    assert [seq for seq, _ in resumption.missed] == [3]
    assert resumption.seq == 2


async def test_an_impatient_message_does_not_wait_for_who_is_away(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    assert await world.one.send("a", "peer-b", message(1), patient=False) is True
    await world.two.suspend("b", world.now)
    with pytest.raises(NotThere):
        await world.one.send("a", "peer-b", message(2), patient=False)
    assert await world.one.send("a", "peer-b", message(3)) is False


async def test_a_session_that_cannot_go_on_leaves_no_socket_behind(world):
    """Who comes back with a number that was never given begins anew, and what was there ends."""
    await begin(world.one, "a", "r")
    assert await world.two.resume("a", b"a", 99) is None
    await world.settle()
    assert ("a", CloseCode.SESSION_OVER) in world.ear.cuts
