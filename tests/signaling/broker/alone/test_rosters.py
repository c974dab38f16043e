"""Whom a node knows of in its rooms without asking Redis."""

import asyncio
from typing import Any

import pytest

from signaling.broker.base import Unavailable
from signaling.broker.rosters import Rosters
from signaling.protocol import peerjs
from signaling.protocol.messages import NULL
from tests.signaling.broker.torn import Torn
from tests.signaling.broker.worlds import begin, message


async def test_who_comes_from_elsewhere_is_known_with_all_in_its_room(torn: Torn):
    await begin(torn.two, "far", "other")
    await begin(torn.two, "mover", "other")
    assert await torn.one.resume("mover", b"mover", torn.last_elsewhere("mover")) is not None
    await torn.cut()
    with pytest.raises(Unavailable):  # it may have asked at the other node
        await torn.one.broadcast("mover", message(1), "id")
    peers = torn.one._sessions.rosters.others(["other"], "peer-mover")
    assert peers == {"peer-far"}
    await torn.mend()


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
