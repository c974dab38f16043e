"""The Python client's half of a session, without a server: what is asked, heard and begun anew."""

from typing import Any

import pytest

from signaling.client import SignalingError
from signaling.client.session import MOST_REFUSALS, MOST_WAITING, Session, Welcome


def welcome(peer: str = "peer-1", *, resumed: bool = False) -> dict[str, Any]:
    return {"session": f"of {peer}", "secret": "s", "peer": peer, "resumed": resumed}


@pytest.fixture
async def session() -> Session:
    """One that has begun. (Requests need a loop to be made in.)"""
    begun = Session()
    assert begun.resumption() is None
    assert begun.welcome(welcome()) is Welcome.FIRST
    return begun


async def test_what_is_asked_waits_for_its_own_answer(session: Session):
    one, two = session.request({"type": "ice"}), session.request({"type": "ice"})
    assert one.frame["id"] != two.frame["id"]
    assert session.answered_by({"type": "ok", "id": "another's"}) is None
    assert session.answered_by({"type": "peer", "id": two.frame["id"]}) is None
    answer = {"type": "ice", "id": two.frame["id"]}
    assert session.answered_by(answer) is two
    assert session.settle(two, answer)
    assert (two.answer.result(), one.answer.done()) == (answer, False)
    session.forget(two)
    assert session.requests() == [one]


async def test_what_may_pass_is_asked_again_so_many_times(session: Session):
    request = session.request({"type": "message"})
    refusal = {"type": "error", "code": "unavailable", "message": "later", "retryable": True}
    again = [session.settle(request, refusal) for _ in range(MOST_REFUSALS)]
    assert again == [False] * (MOST_REFUSALS - 1) + [True]
    with pytest.raises(SignalingError) as error:
        request.answer.result()
    assert (error.value.code, error.value.retryable) == ("unavailable", True)


async def test_what_waits_is_bounded(session: Session):
    for _ in range(MOST_WAITING):
        session.request({"type": "ice"})
    with pytest.raises(SignalingError, match="too many"):
        session.request({"type": "ice"})


async def test_a_resume_keeps_what_was_asked_and_heard(session: Session):
    request = session.request({"type": "signal"})
    assert session.accept(3)
    assert session.resumption() == {"session": "of peer-1", "secret": "s", "seq": 3}
    assert session.welcome(welcome(resumed=True)) is Welcome.RESUMED
    assert session.requests() == [request]
    assert not session.accept(3)  # replayed


async def test_another_session_loses_what_was_for_peers_of_the_old_one(session: Session):
    join, signal = session.request({"type": "join"}), session.request({"type": "signal"})
    assert session.accept(3)
    assert session.welcome(welcome("peer-2")) is Welcome.RESTARTED
    assert (session.peer, session.seen) == ("peer-2", 0)
    assert not join.answer.done()
    with pytest.raises(SignalingError) as error:
        signal.answer.result()
    assert error.value.code == "session_lost"


async def test_what_was_heard_is_acknowledged_once(session: Session):
    assert [session.accept(seq) for seq in (1, 2, 2, 1)] == [True, True, False, False]
    assert session.unacknowledged == 2
    assert session.acknowledge() == {"type": "ack", "seq": 2}
    assert session.unacknowledged == 0


async def test_the_end_is_told_to_all_who_wait(session: Session):
    one, two = session.request({"type": "ice"}), session.request({"type": "ice"})
    session.settle(one, {"type": "ok"})
    session.fail(SignalingError("closed"))
    assert one.answer.result() == {"type": "ok"}
    with pytest.raises(SignalingError, match="closed"):
        two.answer.result()
