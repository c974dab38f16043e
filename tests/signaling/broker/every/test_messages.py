"""What every broker guarantees of messages, rooms and mailboxes."""

import json

import pytest

from signaling.broker.base import (
    MailboxFull,
    NotThere,
    RoomFull,
    SessionOver,
)
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL, ByeOut, SignalOut
from tests.signaling.broker.worlds import WINDOW, begin, message, raw


async def test_a_message_reaches_a_peer_in_the_same_room_and_nobody_else(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await begin(world.two, "c", "other")
    assert await world.one.send("a", "peer-b", message("hi")) is True
    assert await world.heard("b") == [("message", "hi", 1)]
    assert await world.heard("c") == []


@pytest.mark.parametrize("to", ["peer-c", "peer-x", "peer-a", "b", "* ", "\r\nDEL x", "ü"])
async def test_whoever_shares_no_room_is_not_there(world, to):
    await begin(world.one, "a", "r")
    await begin(world.two, "c", "other")
    with pytest.raises(NotThere):
        await world.one.send("a", to, message("hi"))


async def test_a_broadcast_reaches_everyone_once(world):
    await begin(world.one, "a", "r", "s")
    await begin(world.two, "b", "r", "s")
    await begin(world.two, "c", "s")
    await world.settle()
    world.forget()
    assert await world.one.broadcast("a", message("all")) is True
    assert [e[:2] for e in await world.heard("b")] == [("message", "all")]
    assert [e[:2] for e in await world.heard("c")] == [("message", "all")]
    assert await world.heard("a") == []


async def test_events_keep_their_order_and_their_own_numbers(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    for number in range(6):
        await world.one.send("a", "peer-b", message(number))
    assert await world.heard("b") == [("message", number, number + 1) for number in range(6)]


@pytest.mark.parametrize(
    "data", [None, {"a": [1, 2.5, "ü\u2028\"\\'"]}, "%s]]..'\"", 10**15, "\\u0000"]
)
async def test_what_users_write_arrives_as_it_was(world, data):
    room = "r' \n\x00 {tag} *"
    await begin(world.one, "a", room)
    await begin(world.two, "b")
    peers = await world.two.join("b", room, raw(data), 64)
    assert [(peer.id, peer.polite) for peer in peers] == [("peer-a", False)]
    await world.one.send("a", "peer-b", message(data))
    await world.settle()
    joined, heard = (json.loads(text) for _, _, text in world.ear.delivered)
    assert joined == {
        "type": "peer", "event": "join", "room": room, "id": "peer-b", "name": "b",
        "meta": data, "polite": True, "reason": "", "seq": 1,
    }  # fmt: skip
    assert heard == {"type": "message", "from": "peer-a", "data": data, "seq": 1}


async def test_those_who_are_there_are_told_in_the_order_in_which_they_came(world):
    for name in "cab":
        await begin(world.one, name, "r")
    await world.one.suspend("a", world.now)
    await begin(world.two, "d")
    peers = await world.two.join("d", "r", NULL, 64)
    assert [(peer.id, peer.state, peer.polite) for peer in peers] == [
        ("peer-c", "present", False), ("peer-a", "suspended", False), ("peer-b", "present", False),
    ]  # fmt: skip
    again = await world.one.join("c", "r", NULL, 64)
    assert [(peer.id, peer.polite) for peer in again] == [
        ("peer-a", True), ("peer-b", True), ("peer-d", True),
    ]  # fmt: skip


async def test_what_a_member_says_of_itself_may_change(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.two.join("b", "r", raw("away"), 1)
    await world.two.join("b", "r", raw("away"), 1)
    assert await world.presence("a") == ["join", "update"]
    assert (await world.one.join("a", "r", NULL, 64))[0].meta == raw("away")


async def test_what_acts_for_a_session_that_is_over_is_told_so(world):
    await begin(world.one, "a", "r")
    await world.one.close("a", "left")
    with pytest.raises(SessionOver):
        await world.one.join("a", "r", NULL, 64)
    with pytest.raises(SessionOver):
        await world.one.send("a", "peer-b", message("hi"))
    with pytest.raises(SessionOver):
        await world.one.broadcast("a", message("hi"))


async def test_a_room_has_a_capacity(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b")
    with pytest.raises(RoomFull):
        await world.two.join("b", "r", NULL, 1)
    assert await world.two.rooms_of("b") == []
    assert await world.one.rooms_of("a") == ["r"]
    assert world.one.counts() == (1, 1)


async def test_what_came_while_the_socket_was_lost_is_had_on_return(world):
    await begin(world.one, "a", "r")
    await begin(world.one, "b", "r")
    await world.one.send("a", "peer-b", message("seen"))
    await world.one.suspend("b", world.now)
    await world.settle()
    world.forget()
    assert await world.one.send("a", "peer-b", message("missed")) is False
    assert await world.heard("b") == []
    resumption = await world.two.resume("b", b"b", 1)
    assert [(seq, json.loads(text)["data"]) for seq, text in resumption.missed] == [(2, "missed")]
    assert resumption.record.peer == "peer-b"
    assert await world.two.rooms_of("b") == ["r"]
    await world.one.send("a", "peer-b", message("after"))
    assert await world.heard("b") == [("message", "after", 3)]


async def test_presence_is_told_suspended_and_resumed_and_one_leave(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.two.suspend("b", world.now)
    await world.two.suspend("b", world.now)
    await world.two.resume("b", b"b", 0)
    await world.two.suspend("b", world.now)
    world.later(WINDOW - 5)
    assert await world.reap() == 0
    world.later(5)
    assert await world.reap() == 1
    assert await world.reap() == 0
    await world.two.close("b", "left")
    assert await world.presence("a") == ["join", "suspended", "resumed", "suspended", "leave"]


async def test_the_secret_is_needed_to_come_back(world):
    await begin(world.one, "b", "r")
    assert await world.two.resume("b", b"wrong", 0) is None
    assert await world.two.resume("nobody", b"b", 0) is None
    assert await world.two.resume("* { }", b"b", 0) is None
    assert await world.two.resume("b", b"b", 0) is not None


async def test_a_gap_is_not_papered_over(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    for number in range(4):
        await world.one.send("a", "peer-b", message(number))
    await world.settle()
    await world.two.acknowledge("b", 3)
    assert await world.two.resume("b", b"b", 1) is None  # 2 and 3 are gone
    assert await world.presence("a") == ["join", "leave"]


async def test_a_number_that_was_never_given_is_not_believed(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.one.send("a", "peer-b", message("one"))
    await world.settle()
    await world.two.acknowledge("b", 7)
    assert len((await world.two.resume("b", b"b", 0)).missed) == 1
    assert await world.two.resume("b", b"b", 7) is None


async def test_a_full_mailbox_is_told_to_the_sender(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.two.suspend("b", world.now)
    for number in range(8):
        await world.one.send("a", "peer-b", message(number))
    with pytest.raises(MailboxFull):
        await world.one.send("a", "peer-b", message("too much"))
    assert len((await world.two.resume("b", b"b", 0)).missed) == 8


async def test_a_mailbox_is_bounded_in_bytes_and_empties_by_acknowledgement(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    for _ in range(3):
        await world.one.send("a", "peer-b", message("x" * 3000))
    with pytest.raises(MailboxFull):
        await world.one.send("a", "peer-b", message("x" * 3000))
    await world.settle()
    await world.two.acknowledge("b", 1)
    assert await world.one.send("a", "peer-b", message("x" * 3000)) is True


async def test_an_event_that_could_not_be_kept_forbids_a_resume(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.two.suspend("b", world.now)
    for number in range(9):
        await world.one.broadcast("a", message(number))
    assert await world.two.resume("b", b"b", 0) is None


async def test_who_does_not_acknowledge_is_cut(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    for number in range(9):
        await world.one.broadcast("a", message(number))
    await world.settle()
    assert world.ear.cuts == [("b", CloseCode.SLOW_READER)]


async def test_leaving_a_room_ends_what_was_shared_there(world):
    await begin(world.one, "a", "r")
    await begin(world.one, "b", "r")
    await world.one.leave("b", "r", "left")
    with pytest.raises(NotThere):
        await world.one.send("a", "peer-b", ByeOut("peer-a"))
    with pytest.raises(NotThere):
        await world.one.leave("b", "r", "left")
    assert world.one.counts() == (1, 1)


async def test_a_request_that_is_repeated_is_done_once_on_whichever_node(world):
    await begin(world.one, "a", "r")
    await begin(world.one, "b", "r")
    assert await world.one.send("a", "peer-b", message("once"), "id 1") is True
    assert await world.one.broadcast("a", message("to all"), "id 2") is True
    assert await world.two.resume("a", b"a", 1) is not None
    assert await world.two.send("a", "peer-b", message("once"), "id 1") is False
    assert await world.two.broadcast("a", message("to all"), "id 2") is False
    assert [what for _, what, _ in await world.heard("b")] == ["once", "to all"]
    await world.two.leave("a", "r", "left", "id 3")
    await world.two.leave("a", "r", "left", "id 3")
    assert await world.presence("b") == ["leave"]


async def test_a_signal_is_passed_on_whole(world):
    await begin(world.one, "a", "r")
    await begin(world.two, "b", "r")
    await world.one.send("a", "peer-b", SignalOut("peer-a", candidate=NULL))
    await world.settle()
    assert json.loads(world.ear.delivered[-1][2]) == {
        "type": "signal", "from": "peer-a", "candidate": None, "seq": 1,
    }  # fmt: skip


async def test_nothing_is_left_when_all_have_gone(world):
    for name in "abc":
        await begin(world.one, name, "r", "s")
    for name in "abc":
        await world.one.close(name, "left")
    assert world.one.counts() == (0, 0)
    assert await world.one.rooms_of("a") == []
