"""A node that is cut off from Redis goes on with its own sockets; nothing is lost or doubled."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from signaling.broker import alone
from signaling.broker.base import Later, MailboxFull, NotThere, Unavailable
from signaling.broker.ledger import JUMP, MOST_REQUESTS
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from tests.redis_server import redis_server
from tests.signaling.broker.torn import WITHIN, Torn, torn_world, until
from tests.signaling.broker.worlds import MOST_MESSAGES, Call, begin, instead, message


async def test_messages_between_its_sockets_go_on(torn: Torn):
    await torn.cut()
    answers = [await torn.tell(number) for number in range(3)]
    assert torn.heard(torn.one, "b") == [0, 1, 2]
    assert not any(answer.done() for answer in answers)
    await torn.one.acknowledge("b", torn.last("b") - 1)
    assert [answer.done() for answer in answers] == [True, True, False]
    await torn.mend()
    assert await answers[2] is True
    assert torn.heard(torn.one, "b") == [0, 1, 2]
    # The mailbox has what was not acknowledged, and b may go anywhere.
    assert await torn.missed("b", torn.last("b") - 1) == [2]
    # And all goes on as before.
    assert await torn.one.send("a", "peer-b", message(3), "id 3")
    await torn.two.renew()
    assert torn.heard(torn.two, "b") == [3]


@pytest.mark.usefixtures("soon_away")
async def test_redis_that_answers_nobody_holds_nothing_up_for_long(tmp_path: Path):
    with redis_server(tmp_path / "redis") as server:
        async with torn_world(server) as torn:
            server.sleep()
            for number in range(MOST_REQUESTS + 10):
                await torn.tell(number)
                await torn.one.acknowledge("b", torn.last("b"))
            numbers = list(range(MOST_REQUESTS + 10))
            assert torn.heard(torn.one, "b") == numbers
            server.wake()  # and it does the first one, too, of which it was asked before
            await torn.mend()
            assert torn.heard(torn.one, "b") == numbers
            assert not await torn.one.send("a", "peer-b", message(265), "id 265")
            assert await torn.one.send("a", "peer-b", message("more"), "id more")
            await torn.one.renew()
            assert torn.heard(torn.one, "b") == [*numbers, "more"]


async def test_what_redis_did_before_it_went_is_not_done_again(torn: Torn):
    """The answer is lost on its way, what it caused here is not; or both are."""

    async def answered_never(real: Call, script: str, *arguments: Any) -> Any:
        await real(script, *arguments)
        if script == "send":
            torn.wire.cut()
            await until(lambda: not torn.one.is_up())
            raise Unavailable("Redis went away")
        return None

    with instead(torn.one, answered_never):
        sending = asyncio.ensure_future(torn.one.send("a", "peer-b", message(1), "id 1"))
        done, _ = await asyncio.wait({sending}, timeout=WITHIN)
        assert done
        assert sending.exception() is None or isinstance(sending.exception(), Later)
    await torn.mend()
    assert torn.heard(torn.one, "b") == [1]
    resumption = await torn.two.resume("b", b"b", 0)
    assert resumption is not None
    data = [json.loads(text).get("data") for _, text in resumption.missed]
    assert [each for each in data if each is not None] == [1]


async def test_what_others_sent_meanwhile_comes_after_it_and_under_another_number(torn: Torn):
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    await torn.tell("near 1")
    for number in range(3):
        await torn.two.send("far", "peer-b", message(f"far {number}"), f"far {number}")
    await torn.tell("near 2")
    await torn.mend()
    expected = ["near 1", "near 2", "far 0", "far 1", "far 2"]
    assert torn.heard(torn.one, "b") == expected
    numbers = [seq for name, seq, _ in torn.ears[torn.one].delivered if name == "b"]
    assert numbers == sorted(set(numbers))
    assert await torn.missed("b", torn.last("b") - 4) == expected[1:]


async def test_who_has_seen_it_resumes_nothing_elsewhere(torn: Torn):
    """Else its number would be taken for that of another event, which it never saw."""
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    answer = await torn.tell(1)
    await torn.two.send("far", "peer-b", message("far"), "far")
    assert torn.last("b") > JUMP
    assert await torn.two.resume("b", b"b", torn.last("b")) is None
    await torn.mend()
    assert ("b", CloseCode.SESSION_OVER) in torn.ears[torn.one].cuts
    with pytest.raises(NotThere):
        await answer


async def test_who_has_not_seen_it_gets_it_elsewhere(torn: Torn):
    before = torn.last("b")
    await torn.cut()
    answer = await torn.tell(1)  # it goes to a socket that is gone
    assert await torn.two.resume("b", b"b", before) is not None
    await torn.mend()
    assert await answer is True
    assert torn.heard(torn.two, "b") == [1]


async def test_a_sender_who_asks_again_elsewhere_is_heard_once(torn: Torn):
    await torn.cut()
    await torn.tell(1)
    assert await torn.two.resume("a", b"a", torn.last("a")) is not None
    await torn.two.send("a", "peer-b", message(1), "id 1")
    await torn.two.send("a", "peer-b", message(2), "id 2")
    await torn.mend()
    assert torn.heard(torn.one, "b") == [1, 2]


async def test_a_sender_who_asks_again_after_it_is_heard_once(torn: Torn):
    await torn.cut()
    answer = await torn.tell(1)
    again = await torn.tell(1)
    await torn.one.acknowledge("b", torn.last("b"))
    assert await answer is True
    assert await again is True
    await torn.mend()
    assert await torn.two.resume("a", b"a", torn.last("a")) is not None
    assert not await torn.two.send("a", "peer-b", message(1), "id 1")
    await torn.two.renew()
    assert torn.heard(torn.one, "b") == [1]


async def test_who_has_sent_much_to_others_since_is_heard_once_all_the_same(torn: Torn):
    """What Redis remembers of a sender has an end: what it may ask again has to be in it."""
    await torn.cut()
    answers = []
    for number in range(MOST_REQUESTS):
        with pytest.raises(Later) as later:
            await torn.one.send("a", "peer-c", message(number), f"to c {number}")
        answers.append(later.value.answer)
        await torn.one.acknowledge("c", torn.last("c"))
    await torn.tell("last")
    await torn.one.acknowledge("b", torn.last("b"))
    await torn.mend()
    assert await torn.two.resume("a", b"a", torn.last("a")) is not None
    assert not await torn.two.send("a", "peer-b", message("last"), "id last")
    await torn.one.renew()
    assert torn.heard(torn.one, "b") == ["last"]


async def test_redis_that_comes_and_goes_while_it_is_put_right(torn: Torn):
    """The mailbox took over, and the answer to that was lost: the numbers jump once more."""
    await torn.cut()
    await torn.tell(1)
    before = torn.last("b")
    await torn.comes_and_goes("reconcile")
    await torn.tell(2)
    assert torn.last("b") >= before + JUMP
    await torn.mend()
    assert torn.heard(torn.one, "b") == [1, 2]
    assert await torn.missed("b", before) == [2]


async def test_what_was_not_acknowledged_before_is_kept(torn: Torn):
    await torn.one.send("a", "peer-b", message("before"), "id 0")
    await torn.cut()
    await torn.tell(1)
    await torn.mend()
    resumption = await torn.two.resume("b", b"b", 0)
    assert resumption is not None
    data = [json.loads(text).get("data") for _, text in resumption.missed]
    assert [each for each in data if each is not None] == ["before", 1]


async def test_who_lost_its_socket_meanwhile_has_it_in_its_mailbox(torn: Torn):
    before = torn.last("b")
    await torn.cut()
    answer = await torn.tell(1)
    await torn.one.suspend("b", 0.0)
    with pytest.raises(Unavailable):
        await torn.one.send("a", "peer-b", message(2), "id 2")
    await torn.mend()
    assert await answer is True
    assert await torn.missed("b", before) == [1]


async def test_only_what_is_sure_goes_without_redis(torn: Torn):
    await begin(torn.two, "far", "room")
    await begin(torn.one, "stranger", "elsewhere")
    assert await torn.two.resume("c", b"c", torn.last("c")) is not None
    assert await torn.one.resume("c", b"c", torn.last("c")) is not None
    await torn.cut()
    for sender, recipient in (
        ("a", "peer-far"),  # at another node
        ("a", "peer-stranger"),  # in no room with a
        ("a", "peer-nobody"),
        ("c", "peer-b"),  # c may ask again what it asked at the other node
    ):
        with pytest.raises(Unavailable):
            await torn.one.send(sender, recipient, message(1), "id 1")
    with pytest.raises(Unavailable):
        await torn.one.broadcast("c", message(1), "id 2")
    with pytest.raises(Unavailable):
        await torn.one.join("a", "another", NULL, 8)
    await torn.tell("b hears of nothing else")


async def test_what_is_not_acknowledged_is_bounded(torn: Torn):
    await torn.cut()
    for number in range(MOST_MESSAGES):
        await torn.tell(number)
    with pytest.raises(MailboxFull):
        await torn.one.send("a", "peer-b", message("too much"), "id")
    await torn.one.acknowledge("b", torn.last("b"))
    await torn.tell("enough")


async def test_a_short_absence_is_waited_for(torn: Torn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alone, "GRACE", WITHIN)
    await torn.cut()
    sending = asyncio.ensure_future(torn.one.send("a", "peer-b", message(1), "id 1"))
    await asyncio.sleep(0.1)
    await torn.mend()
    assert await sending is True
    await torn.one.renew()
    assert torn.heard(torn.one, "b") == [1]
    assert torn.last("b") < JUMP


async def test_what_needs_no_answer_goes_on_and_comes_once(torn: Torn):
    await torn.cut()
    assert await torn.one.send("a", "peer-b", message("bye")) is True
    await torn.mend()
    assert torn.heard(torn.one, "b") == ["bye"]
