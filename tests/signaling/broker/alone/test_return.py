"""Redis comes back, goes again, and may have done before what it was asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from signaling.broker import alone, ledger
from signaling.broker.base import MailboxFull, Unavailable
from tests.redis_server import redis_server
from tests.signaling.broker.torn import Torn, torn_world, until
from tests.signaling.broker.worlds import Call, begin, instead, message


@pytest.mark.usefixtures("soon_away")
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


@pytest.mark.usefixtures("soon_away")
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

    async def answered_never(real: Call, script: str, *arguments: Any) -> Any:
        await real(script, *arguments)
        await until(lambda: torn.heard(torn.one, "b"))
        torn.wire.cut()
        await until(lambda: not torn.one.is_up())
        raise Unavailable("Redis went away")

    with instead(torn.one, answered_never):
        assert not await torn.one.broadcast("a", message(1), "id 1")
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
    await torn.all_acknowledge()
    for number in (2, 3):
        await torn.comes_and_goes(lost)
        answers.append(await torn.tell_all(number))
        await torn.bind()
        await torn.all_acknowledge()
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

    async def loses_the_answer(real: Call, script: str, *arguments: Any) -> Any:
        reply = await real(script, *arguments)
        if script == "reconcile":
            if arguments[0] == "b":
                await torn.two.send("far", "peer-b", message("far"), "id far")
                await until(lambda: "far" in torn.heard(torn.one, "b"))
                torn.wire.cut()
            await until(lambda: not torn.wire._whole)
            raise Unavailable("Redis went away")
        return reply

    with instead(torn.one, loses_the_answer):
        torn.wire.mend()
        await until(lambda: not torn.wire._whole)
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
