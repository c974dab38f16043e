"""What is said to all of a room: whoever is here has it now, others when Redis is back, once."""

import asyncio

import pytest

from signaling.broker import alone
from signaling.broker.base import MailboxFull, SessionOver, Unavailable
from signaling.broker.ledger import JUMP
from signaling.protocol.errors import CloseCode
from tests.signaling.broker.torn import WITHIN, Torn
from tests.signaling.broker.worlds import MOST_BYTES, MOST_MESSAGES, begin, message


async def test_a_room_that_is_all_here_goes_on_and_is_answered(torn: Torn):
    await torn.cut()
    answers = [await torn.tell_all(number) for number in (0, 1)]
    await torn.one.acknowledge("a", torn.last("a") - 1)
    assert torn.heard(torn.one, "b") == []  # a could still ask at another node
    await torn.bind()
    answers.append(await torn.tell_all(2))
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [0, 1, 2]
    await torn.one.acknowledge("b", torn.last("b"))
    assert not any(answer.done() for answer in answers)  # c has not said so
    await torn.one.acknowledge("c", torn.last("c") - 1)
    await asyncio.sleep(0)
    assert [answer.done() for answer in answers] == [True, True, False]
    await torn.mend()
    assert await answers[2] is True
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [0, 1, 2]
    # The mailbox has what was not acknowledged, once; and all goes on as before.
    assert await torn.missed("c", torn.last("c") - 1) == [2]
    assert await torn.one.broadcast("a", message(3), "id 3")
    await torn.two.renew()
    assert torn.heard(torn.two, "c") == [3]


async def test_who_is_elsewhere_gets_it_when_redis_is_back(torn: Torn):
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    answers = [await torn.tell_all("all 1")]
    await torn.bind()
    await torn.tell("b alone")
    answers.append(await torn.tell_all("all 2"))
    assert torn.heard(torn.one, "b") == ["all 1", "b alone", "all 2"]
    await torn.all_acknowledge()
    assert not any(answer.done() for answer in answers)  # nothing has it yet but this node
    with pytest.raises(Unavailable):  # what is said to far alone must not overtake it
        await torn.one.send("a", "peer-far", message("far alone"), "id far")
    await torn.mend()
    assert [await answer for answer in answers] == [True, True]
    assert await torn.one.send("a", "peer-far", message("far alone"), "id far")
    await torn.mend()
    assert torn.heard(torn.two, "far") == ["all 1", "all 2", "far alone"]
    assert torn.heard(torn.one, "b") == ["all 1", "b alone", "all 2"]
    assert torn.heard(torn.one, "c") == ["all 1", "all 2"]


async def test_a_sender_who_may_ask_elsewhere_is_waited_for(torn: Torn):
    before = torn.last("a")
    await torn.cut()
    answer = await torn.tell_all(1)
    assert await torn.two.resume("a", b"a", before) is not None  # it has not seen our number
    await torn.two.broadcast("a", message(1), "id 1")
    assert torn.heard(torn.one, "b") == []
    await torn.mend()
    with pytest.raises(SessionOver):
        await answer
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [1]


async def test_a_sender_who_has_seen_our_number_resumes_nowhere_else(torn: Torn):
    await begin(torn.two, "far", "room")
    await torn.cut()
    answer = await torn.tell_all(1)
    await torn.bind()
    assert await torn.two.resume("a", b"a", torn.last("a")) is None
    await torn.mend()
    with pytest.raises(SessionOver):
        await answer
    assert ("a", CloseCode.SESSION_OVER) in torn.ears[torn.one].cuts
    assert torn.heard(torn.one, "b") == [1]
    assert torn.heard(torn.two, "far") == []  # nobody was told that it would


async def test_a_sender_who_asks_again_afterwards_is_heard_once(torn: Torn):
    await torn.cut()
    answer = await torn.tell_all(1)
    await torn.bind()
    again = await torn.tell_all(1)
    await torn.all_acknowledge()
    assert await answer is True
    assert await again is True
    await torn.mend()
    assert await torn.two.resume("a", b"a", torn.last("a")) is not None
    await begin(torn.two, "new", "room")
    assert not await torn.two.broadcast("a", message(1), "id 1")
    await torn.mend()
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [1]
    assert torn.heard(torn.two, "new") == []


async def test_nor_is_it_where_everyone_who_had_it_has_gone_elsewhere(torn: Torn):
    await torn.one.leave("c", "room", "left")
    await torn.one.renew()
    await torn.cut()
    answer = await torn.tell_all(1)
    await torn.bind()
    await torn.one.acknowledge("b", torn.last("b"))
    assert await answer is True
    assert await torn.two.resume("b", b"b", torn.last("b")) is None
    await begin(torn.two, "anew", "room")
    await torn.mend()
    assert await torn.two.resume("a", b"a", torn.last("a")) is not None
    assert not await torn.two.broadcast("a", message(1), "id 1")
    await torn.mend()
    assert torn.heard(torn.two, "anew") == []


async def test_who_moves_before_it_has_seen_it_gets_it_there_in_order(torn: Torn):
    before = torn.last("b")
    await torn.cut()
    answers = [await torn.tell_all("all 1")]
    await torn.bind()
    answers += [await torn.tell("b alone"), await torn.tell_all("all 2")]
    await torn.one.acknowledge("c", torn.last("c"))
    assert await torn.two.resume("b", b"b", before) is not None
    await torn.mend()
    assert [await answer for answer in answers] == [True, True, True]
    assert torn.heard(torn.two, "b") == ["all 1", "b alone", "all 2"]


async def test_who_has_seen_it_and_begins_anew_elsewhere_does_not_get_it_again(torn: Torn):
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    answer = await torn.tell_all(1)
    await torn.bind()
    assert await torn.two.resume("b", b"b", torn.last("b")) is None
    await begin(torn.two, "anew", "room")
    await torn.mend()
    assert await answer is True
    assert torn.heard(torn.two, "anew") == []
    assert torn.heard(torn.two, "far") == [1]


async def test_who_lost_its_socket_has_it_in_its_mailbox(torn: Torn):
    before = torn.last("b")
    await torn.cut()
    await torn.one.suspend("b", 0.0)
    answer = await torn.tell_all(1)
    await torn.bind()
    assert torn.heard(torn.one, "c") == [1]
    assert torn.heard(torn.one, "b") == []
    with pytest.raises(Unavailable):
        await torn.one.send("a", "peer-b", message(2), "id 2")
    await torn.mend()
    assert await answer is True
    assert await torn.missed("b", before) == [1]


async def test_who_reads_too_slowly_gets_the_rest_from_redis_in_order(torn: Torn):
    await torn.cut()
    await torn.tell_all(0)
    await torn.bind()
    for number in range(1, MOST_MESSAGES + 1):
        await torn.tell_all(number)
        await torn.one.acknowledge("c", torn.last("c"))
    await torn.one.acknowledge("b", torn.last("b"))
    await torn.tell_all("more")  # though there is a place again: one was not handed on
    assert torn.heard(torn.one, "c") == [*range(MOST_MESSAGES + 1), "more"]
    assert torn.heard(torn.one, "b") == [*range(MOST_MESSAGES)]
    await torn.mend()
    assert torn.heard(torn.one, "b") == [*range(MOST_MESSAGES + 1), "more"]


async def test_where_the_sender_says_nothing_it_comes_when_redis_is_back(torn: Torn):
    await torn.cut()
    answer = await torn.tell_all(1)
    with pytest.raises(Unavailable):
        await torn.one.send("a", "peer-b", message(2), "id 2")
    await torn.mend()
    assert await answer is True
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [1]


async def test_what_needs_no_answer_goes_on_and_comes_once(torn: Torn):
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    assert await torn.one.broadcast("a", message("bye")) is True
    await torn.bind()
    assert torn.heard(torn.one, "b") == ["bye"]
    await torn.mend()
    assert torn.heard(torn.one, "b") == torn.heard(torn.two, "far") == ["bye"]


async def test_nobody_there_is_answered_at_once(torn: Torn):
    await begin(torn.one, "single", "elsewhere")
    await torn.cut()
    assert await torn.one.broadcast("single", message(1), "id") is True


async def test_what_waits_for_redis_is_bounded(torn: Torn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alone, "MOST_REQUESTS", 4)
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    await torn.tell_all("x" * (MOST_BYTES // 2))
    with pytest.raises(MailboxFull):
        await torn.one.broadcast("a", message("x" * (MOST_BYTES // 2)), "too much")
    await torn.bind()
    for number in range(3):
        await torn.tell_all(number)
        await torn.all_acknowledge()
    with pytest.raises(MailboxFull):
        await torn.one.broadcast("a", message("one more"), "one more")
    with pytest.raises(MailboxFull):
        await torn.one.send("a", "peer-b", message("one more"), "one more")
    await torn.mend()
    assert torn.heard(torn.one, "b")[1:] == torn.heard(torn.two, "far")[1:] == [0, 1, 2]


async def test_a_short_absence_is_waited_for(torn: Torn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alone, "GRACE", WITHIN)
    await torn.cut()
    sending = asyncio.ensure_future(torn.one.broadcast("a", message(1), "id 1"))
    await asyncio.sleep(0.1)
    await torn.mend()
    assert await sending is True
    await torn.one.renew()
    assert torn.heard(torn.one, "b") == [1]
    assert torn.last("a") < JUMP


async def test_a_node_that_stops_leaves_nobody_waiting(torn: Torn):
    await torn.cut()
    answer = await torn.tell_all(1)
    await torn.one.stop()
    with pytest.raises(SessionOver):
        await answer


async def test_what_all_have_takes_no_room_while_redis_is_away(torn: Torn):
    """Else each message would cost so much for each who has it until Redis is back."""
    await torn.cut()
    answers = [await torn.tell_all(0)]
    await torn.bind()
    answers += [await torn.tell_all(number) for number in (1, 2)]
    await torn.all_acknowledge()
    assert [await answer for answer in answers] == [True, True, True]
    for session in "bc":
        ledger = torn.one._attached[session].ledger
        assert ledger is not None
        assert [*ledger.arguments()] == [0]
    await torn.mend()
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [0, 1, 2]


async def test_for_how_many_it_waits_is_bounded_too(torn: Torn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alone, "PEER_BYTES", MOST_BYTES // 4)
    await torn.cut()
    await torn.tell_all(1)
    with pytest.raises(MailboxFull):
        await torn.one.broadcast("a", message(2), "id 2")
    await torn.bind()
    await torn.all_acknowledge()
    await torn.tell_all(2)
