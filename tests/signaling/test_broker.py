"""What every broker guarantees; one suite, whichever broker."""

import json

import pytest
from msgspec import Raw

from signaling.broker.base import Grant, MailboxFull, NotThere, RoomFull, SessionRecord
from signaling.broker.memory import MemoryBroker
from signaling.protocol.messages import NULL, ByeOut, MessageOut

WINDOW = 30.0


class Listening(MemoryBroker):
    """A broker that keeps what it delivers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.delivered = []


@pytest.fixture
async def broker():
    """A started broker, with what it delivers in ``broker.delivered``."""
    made = Listening(most_messages=8, most_bytes=10_000)
    await made.start(lambda session, _, text: made.delivered.append((session, text)))
    yield made
    await made.stop()


async def begin(broker, name, *rooms):
    await broker.open(SessionRecord(name, name.encode(), f"peer-{name}", name, Grant()))
    for room in rooms:
        await broker.join(name, room, NULL, 64)


def heard(broker, session):
    """(type, event or data, seq) of everything that was delivered to a session."""
    found = []
    for name, text in broker.delivered:
        if name == session and text:
            event = json.loads(text)
            found.append((event["type"], event.get("event", event.get("data")), event["seq"]))
    return found


def message(data):
    return MessageOut("peer-a", Raw(json.dumps(data).encode()))


async def test_a_message_reaches_a_peer_in_the_same_room_and_nobody_else(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    await begin(broker, "c", "other")
    assert await broker.send("a", "peer-b", message("hi")) is True
    assert heard(broker, "b") == [("message", "hi", 1)]
    assert heard(broker, "c") == []


@pytest.mark.parametrize("to", ["peer-c", "peer-x", "peer-a", "", "b"])
async def test_whoever_shares_no_room_is_not_there(broker, to):
    await begin(broker, "a", "r")
    await begin(broker, "c", "other")
    with pytest.raises(NotThere):
        await broker.send("a", to, message("hi"))


async def test_a_broadcast_reaches_everyone_once(broker):
    await begin(broker, "a", "r", "s")
    await begin(broker, "b", "r", "s")
    await begin(broker, "c", "s")
    broker.delivered.clear()
    assert await broker.broadcast("a", message("all")) is True
    assert [e[:2] for e in heard(broker, "b")] == [("message", "all")]
    assert [e[:2] for e in heard(broker, "c")] == [("message", "all")]
    assert heard(broker, "a") == []


async def test_events_keep_their_order_and_their_own_numbers(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    for number in range(6):
        await broker.send("a", "peer-b", message(number))
    assert heard(broker, "b") == [("message", number, number + 1) for number in range(6)]


async def test_a_room_has_a_capacity(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b")
    with pytest.raises(RoomFull):
        await broker.join("b", "r", NULL, 1)
    assert await broker.rooms_of("b") == []
    assert broker.counts() == (1, 1)


async def test_what_came_while_the_socket_was_lost_is_had_on_return(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    await broker.send("a", "peer-b", message("seen"))
    await broker.suspend("b", now=0.0)
    broker.delivered.clear()
    assert await broker.send("a", "peer-b", message("missed")) is False
    assert heard(broker, "b") == []
    resumption = await broker.resume("b", b"b", 1)
    assert [(seq, json.loads(text)["data"]) for seq, text in resumption.missed] == [(2, "missed")]
    assert resumption.record.peer == "peer-b"
    await broker.send("a", "peer-b", message("after"))
    assert heard(broker, "b") == [("message", "after", 3)]


async def test_presence_is_told_suspended_and_resumed_and_one_leave(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    await broker.suspend("b", now=0.0)
    await broker.suspend("b", now=1.0)
    await broker.resume("b", b"b", 0)
    await broker.suspend("b", now=2.0)
    assert await broker.reap(now=2.0 + WINDOW - 0.1) == 0
    assert await broker.reap(now=2.0 + WINDOW) == 1
    assert await broker.reap(now=1000.0) == 0
    await broker.close("b", "left")
    assert [event for _, event, _ in heard(broker, "a")] == [
        "join", "suspended", "resumed", "suspended", "leave",
    ]  # fmt: skip


async def test_the_secret_is_needed_to_come_back(broker):
    await begin(broker, "b", "r")
    assert await broker.resume("b", b"wrong", 0) is None
    assert await broker.resume("nobody", b"b", 0) is None
    assert await broker.resume("b", b"b", 0) is not None


async def test_a_gap_is_not_papered_over(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    for number in range(4):
        await broker.send("a", "peer-b", message(number))
    await broker.acknowledge("b", 3)
    assert await broker.resume("b", b"b", 1) is None  # 2 and 3 are gone
    assert [event for _, event, _ in heard(broker, "a")] == ["join", "leave"]


async def test_a_full_mailbox_is_told_to_the_sender(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    await broker.suspend("b", now=0.0)
    for number in range(8):
        await broker.send("a", "peer-b", message(number))
    with pytest.raises(MailboxFull):
        await broker.send("a", "peer-b", message("too much"))
    assert len((await broker.resume("b", b"b", 0)).missed) == 8


async def test_an_event_that_could_not_be_kept_forbids_a_resume(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    await broker.suspend("b", now=0.0)
    for number in range(9):
        await broker.broadcast("a", message(number))
    assert await broker.resume("b", b"b", 0) is None


async def test_leaving_a_room_ends_what_was_shared_there(broker):
    await begin(broker, "a", "r")
    await begin(broker, "b", "r")
    await broker.leave("b", "r", "left")
    with pytest.raises(NotThere):
        await broker.send("a", "peer-b", ByeOut("peer-a"))
    with pytest.raises(NotThere):
        await broker.leave("b", "r", "left")
    assert broker.counts() == (1, 1)


async def test_nothing_is_left_when_all_have_gone(broker):
    for name in "abc":
        await begin(broker, name, "r", "s")
    for name in "abc":
        await broker.close(name, "left")
    assert broker.counts() == (0, 0)
    assert await broker.rooms_of("a") == []
