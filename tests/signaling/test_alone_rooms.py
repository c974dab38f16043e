"""A node that is cut off from Redis goes on with what is said to all of a room: whoever is here has
it now, whoever is elsewhere when Redis is back, each once and in order.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from signaling.broker import alone, ledger
from signaling.broker.base import MailboxFull, SessionOver, Unavailable
from signaling.broker.ledger import JUMP
from signaling.broker.rosters import Rosters
from signaling.protocol import peerjs
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import NULL
from tests.redis_server import RedisServer, redis_server
from tests.signaling.torn import WITHIN, Torn, torn_world, until
from tests.signaling.worlds import MOST_BYTES, MOST_MESSAGES, begin, message


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis; the tests cut their nodes from it."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def torn(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Torn]:
    monkeypatch.setattr(alone, "GRACE", 0.05)
    server.client.flushdb()
    async with torn_world(server) as made:
        yield made


async def everyone_acknowledges(torn: Torn) -> None:
    for session in "bc":
        await torn.one.acknowledge(session, torn.last(session))


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
    resumption = await torn.two.resume("c", b"c", torn.last("c") - 1)
    assert resumption is not None
    assert [json.loads(text)["data"] for _, text in resumption.missed] == [2]
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
    await everyone_acknowledges(torn)
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
    await everyone_acknowledges(torn)
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


async def test_who_comes_from_elsewhere_is_known_with_all_in_its_room(torn: Torn):
    await begin(torn.two, "far", "other")
    await begin(torn.two, "mover", "other")
    assert await torn.one.resume("mover", b"mover", torn_last(torn, "mover")) is not None
    await torn.cut()
    with pytest.raises(Unavailable):  # it may have asked at the other node
        await torn.one.broadcast("mover", message(1), "id")
    peers = torn.one._sessions.rosters.others(["other"], "peer-mover")
    assert peers == {"peer-far"}
    await torn.mend()


def torn_last(torn: Torn, session: str) -> int:
    delivered = torn.ears[torn.two].delivered
    return max((seq for name, seq, _ in delivered if name == session), default=0)


async def test_what_redis_was_asked_before_it_went_is_done_once(tmp_path: Path):
    with redis_server(tmp_path / "redis") as server:
        async with torn_world(server) as torn:
            await begin(torn.two, "far", "room")
            await torn.one.renew()
            server.sleep()
            await torn.tell_all(1)  # Redis was asked, and may do it yet
            with pytest.raises(Unavailable):  # nothing overtakes it
                await torn.one.send("a", "peer-b", message(2), "id 2")
            await torn.bind()
            await torn.tell_all(3)
            await torn.tell(4)
            assert torn.heard(torn.one, "b") == [1, 3, 4]
            server.wake()
            await torn.mend()
            assert torn.heard(torn.one, "b") == [1, 3, 4]
            assert torn.heard(torn.one, "c") == torn.heard(torn.two, "far") == [1, 3]


@pytest.mark.parametrize("to", ["", "peer-b"])
async def test_what_redis_may_do_yet_is_not_done_alone_after_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
):
    with redis_server(tmp_path / "redis") as server:
        async with torn_world(server) as torn:

            async def ask() -> bool:
                if to:
                    return await torn.one.send("a", to, message(1), "id 1")
                return await torn.one.broadcast("a", message(1), "id 1")

            server.sleep()
            with monkeypatch.context() as narrow:
                narrow.setattr(alone, "MOST_REQUESTS", 0)
                with pytest.raises(MailboxFull):
                    await ask()
            with pytest.raises(Unavailable):
                await ask()
            server.wake()
            await torn.mend()
            await ask()
            await torn.one.renew()
            assert torn.heard(torn.one, "b") == [1]


async def test_nothing_overtakes_what_redis_did_before_it_went(torn: Torn):
    """The answer is lost on its way; what it caused here tells at least that it was done."""
    link, real = torn.one._link, torn.one._link.call

    async def answered_never(script: str, *arguments: Any) -> Any:
        await real(script, *arguments)
        await until(lambda: torn.heard(torn.one, "b"))
        torn.wire.cut()
        await until(lambda: not torn.one.is_up())
        raise Unavailable("Redis went away")

    link.call = answered_never  # type: ignore[method-assign]
    assert not await torn.one.broadcast("a", message(1), "id 1")
    link.call = real  # type: ignore[method-assign]
    with pytest.raises(Unavailable):  # to c it may be on its way yet
        await torn.one.send("a", "peer-c", message(2), "id 2")
    with pytest.raises(Unavailable):
        await torn.one.broadcast("a", message(3), "id 3")
    await torn.mend()
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [1]


@pytest.mark.parametrize("lost", ["again", "reconcile", "attach"])
async def test_redis_that_comes_and_goes_while_it_is_put_right(torn: Torn, lost: str):
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    answers = [await torn.tell_all(1)]
    await torn.bind()
    before = torn.last("a")
    await torn.comes_and_goes(lost)
    answers.append(await torn.tell_all(2))
    await torn.one.acknowledge("a", before)
    assert torn.heard(torn.one, "b") == [1]  # it has to say once more that it stays
    await torn.bind()
    await torn.tell(3)
    assert torn.heard(torn.one, "b") == [1, 2, 3]
    await torn.mend()
    assert [await answer for answer in answers] == [True, True]
    assert torn.heard(torn.one, "b") == [1, 2, 3]
    assert torn.heard(torn.one, "c") == torn.heard(torn.two, "far") == [1, 2]


@pytest.mark.parametrize("lost", ["reconcile", "attach"])
async def test_nobody_is_lost_where_redis_goes_again_just_as_it_is_put_right(torn: Torn, lost: str):
    """What Redis did of it before it went is still this node's."""
    await torn.cut()
    answers = [await torn.tell_all(1)]
    await torn.bind()
    await everyone_acknowledges(torn)
    for number in (2, 3):
        await torn.comes_and_goes(lost)
        answers.append(await torn.tell_all(number))
        await torn.bind()
        await everyone_acknowledges(torn)
    await torn.mend()
    assert [await answer for answer in answers] == [True, True, True]
    assert torn.ears[torn.one].cuts == []
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [1, 2, 3]
    assert await torn.one.broadcast("a", message(4), "id 4")


async def test_what_came_by_a_mailbox_that_was_put_right_comes_once(torn: Torn):
    """Only the node does not know that it was: the answer is lost."""
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    await torn.cut()
    await torn.tell_all(1)
    await torn.bind()
    link, real = torn.one._link, torn.one._link.call

    async def loses_the_answer(script: str, *arguments: Any) -> Any:
        reply = await real(script, *arguments)
        if script == "reconcile":
            if arguments[0] == "b":
                await torn.two.send("far", "peer-b", message("far"), "id far")
                await until(lambda: "far" in torn.heard(torn.one, "b"))
                torn.wire.cut()
            await until(lambda: not torn.wire._whole)
            raise Unavailable("Redis went away")
        return reply

    link.call = loses_the_answer  # type: ignore[method-assign]
    torn.wire.mend()
    await until(lambda: not torn.wire._whole)
    link.call = real  # type: ignore[method-assign]
    await torn.tell_all(2)
    await torn.bind()
    assert torn.heard(torn.one, "b") == [1, "far", 2]
    await torn.mend()
    assert torn.heard(torn.one, "b") == [1, "far", 2]
    assert torn.heard(torn.one, "c") == torn.heard(torn.two, "far") == [1, 2]


async def test_whoever_goes_when_redis_goes_again_is_no_ghost(torn: Torn):
    await torn.cut()
    await torn.comes_and_goes("attach")
    await torn.one.suspend("b", 0.0)
    await torn.mend()
    told = [json.loads(text) for name, _, text in torn.ears[torn.one].delivered if name == "a"]
    assert [(it["event"], it["id"]) for it in told if it["type"] == "peer"][-1:] == [
        ("suspended", "peer-b")
    ]


async def test_much_that_is_said_since_makes_no_copy_forgotten(
    torn: Torn, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ledger, "MOST_REQUESTS", 4)
    await torn.cut()
    answer = await torn.tell_all("all")
    await torn.bind()
    await torn.comes_and_goes("again")  # b and c have copies in their mailboxes
    numbers = list(range(6))
    for number in numbers:
        await torn.tell(number)
        await torn.one.acknowledge("b", torn.last("b"))
    await torn.mend()
    assert await answer is True
    assert torn.heard(torn.one, "b") == ["all", *numbers]


async def test_what_redis_may_have_put_there_already_is_not_handed_on(torn: Torn):
    """It waited for its sender; Redis was back, was asked for it, and went before the answer."""
    await torn.cut()
    answers = [await torn.tell_all(1)]
    await torn.comes_and_goes("again", lambda: torn.heard(torn.one, "b"))  # by its mailbox
    answers.append(await torn.tell_all(2))
    await torn.one.acknowledge("a", torn.last("a"))
    with pytest.raises(Unavailable):
        await torn.one.send("a", "peer-b", message(3), "id 3")
    await torn.mend()
    assert [await answer for answer in answers] == [True, True]
    assert torn.heard(torn.one, "b") == torn.heard(torn.one, "c") == [1, 2]


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
    resumption = await torn.two.resume("b", b"b", before)
    assert resumption is not None
    assert [json.loads(text)["data"] for _, text in resumption.missed] == [1]


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
        await everyone_acknowledges(torn)
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


async def test_rosters_are_those_of_the_rooms_that_somebody_here_is_in(torn: Torn):
    assert torn.one._sessions.rosters.others(["room"], "peer-a") == {"peer-b", "peer-c"}
    await begin(torn.two, "far", "room")
    await torn.one.renew()
    assert torn.one._sessions.rosters.others(["room"], "peer-a") == {"peer-b", "peer-c", "peer-far"}
    await torn.two.close("far", "left")
    await torn.one.leave("c", "room", "left")
    await torn.one.renew()
    assert torn.one._sessions.rosters.others(["room"], "peer-a") == {"peer-b"}
    for _ in range(3):
        assert await torn.one.resume("a", b"a", torn.last("a")) is not None
    await torn.one.close("a", "left")
    await torn.one.leave("b", "room", "left")
    assert len(torn.one._sessions.rosters) == 0


@pytest.mark.parametrize("what", ["join", "leave"])
async def test_rosters_are_right_where_a_client_comes_back_before_it_is_answered(
    torn: Torn, what: str
):
    link, real, go_on = torn.one._link, torn.one._link.call, asyncio.Event()

    async def answers_late(script: str, *arguments: Any) -> Any:
        reply = await real(script, *arguments)
        if script == what:
            await go_on.wait()
        return reply

    link.call = answers_late  # type: ignore[method-assign]
    asking = asyncio.ensure_future(
        torn.one.join("a", "other", NULL, 8)
        if what == "join"
        else torn.one.leave("a", "room", "left")
    )
    await asyncio.sleep(0)
    assert await torn.one.resume("a", b"a", torn.last("a")) is not None
    go_on.set()
    await asking
    await torn.one.close("a", "left")
    await torn.one.leave("c", "room", "left")
    await torn.one.renew()
    assert len(torn.one._sessions.rosters) == 1
    assert torn.one._sessions.rosters.others(["room"], "peer-b") == set()


async def test_what_all_have_takes_no_room_while_redis_is_away(torn: Torn):
    """Else each message would cost so much for each who has it until Redis is back."""
    await torn.cut()
    answers = [await torn.tell_all(0)]
    await torn.bind()
    answers += [await torn.tell_all(number) for number in (1, 2)]
    await everyone_acknowledges(torn)
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
    await everyone_acknowledges(torn)
    await torn.tell_all(2)


async def test_quiet_members_are_in_no_roster(torn: Torn):
    name = f"{peerjs.NAME}x"
    await begin(torn.one, name)
    await torn.one.join(name, "room", NULL, 64, quiet=True)
    assert torn.one._sessions.rosters.others(["room"], "peer-a") == {"peer-b", "peer-c"}
    await torn.one.leave("b", "room", "left")
    await torn.one.renew()
    await torn.two.resume(name, name.encode(), 0)
    await torn.one.resume(name, name.encode(), 0)
    assert torn.one._sessions.rosters.others(["room"], "peer-a") == {"peer-c"}


def test_who_is_not_there_is_no_fault():
    rosters = Rosters()
    rosters.leave(["nowhere"])
    rosters.hear(b'{"type":"peer","event":"join","room":"nowhere","id":"x","seq":1}')
    assert len(rosters) == 0
