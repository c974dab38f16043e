"""Rooms: who is told what, and that roles are opposite at both ends."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from signaling.protocol.messages import NULL
from signaling.room import PRESENT, SUSPENDED, Member, Room, RoomFull


def member(name, meta=NULL):
    return Member(f"session-{name}", f"peer-{name}", name, meta)


def said(notices):
    return [(n.session, n.event.event, n.event.id, n.event.polite, n.event.reason) for n in notices]


def test_the_newcomer_is_impolite_and_those_before_are_polite():
    room = Room("r")
    assert room.join(member("a"), 9) == []
    assert said(room.join(member("b"), 9)) == [("session-a", "join", "peer-b", True, "")]
    assert said(room.join(member("c"), 9)) == [
        ("session-a", "join", "peer-c", True, ""),
        ("session-b", "join", "peer-c", True, ""),
    ]
    assert [(p.id, p.polite) for p in room.roster("session-c")] == [
        ("peer-a", False),
        ("peer-b", False),
    ]


def test_roles_outlive_a_lost_socket():
    room = Room("r")
    room.join(member("a"), 9)
    room.join(member("b"), 9)
    room.suspend("session-a")
    assert room.roster("session-b")[0].state == SUSPENDED
    assert said(room.resume("session-a")) == [("session-b", "resumed", "peer-a", False, "")]
    assert room.roster("session-a")[0].polite is True


def test_a_second_leave_says_nothing():
    room = Room("r")
    room.join(member("a"), 9)
    room.join(member("b"), 9)
    assert said(room.leave("session-a", "timeout")) == [
        ("session-b", "leave", "peer-a", False, "timeout")
    ]
    assert room.leave("session-a", "timeout") == []
    assert room.suspend("session-a") == []


def test_what_a_member_says_of_itself_may_change():
    room = Room("r")
    room.join(member("a"), 2)
    room.join(member("b"), 2)
    assert said(room.join(member("a", Raw(b'"away"')), 2)) == [
        ("session-b", "update", "peer-a", False, "")
    ]
    assert room.roster("session-b")[0].meta == Raw(b'"away"')
    assert room.join(member("a", Raw(b'"away"')), 2) == []


def test_a_full_room_takes_nobody_but_those_that_are_in_it():
    room = Room("r")
    room.join(member("a"), 1)
    assert room.join(member("a"), 1) == []
    with pytest.raises(RoomFull):
        room.join(member("b"), 1)


class RoomMachine(RuleBasedStateMachine):
    """Whatever happens, everyone's picture of the room, built from notices, is the room."""

    def __init__(self):
        super().__init__()
        self.room = Room("r")
        self.pictures = {}
        self.inside = {}

    def tell(self, notices):
        for notice in notices:
            picture, event = self.pictures[notice.session], notice.event
            if event.event == "join":
                assert event.id not in picture
                picture[event.id] = (PRESENT, event.polite)
            elif event.event == "leave":
                del picture[event.id]
            else:
                state = SUSPENDED if event.event == "suspended" else PRESENT
                assert picture[event.id][0] != state
                picture[event.id] = (state, event.polite)

    @rule(name=st.sampled_from("abcdef"), capacity=st.integers(1, 6))
    def join(self, name, capacity):
        newcomer = member(name)
        if newcomer.session in self.room:
            return
        try:
            notices = self.room.join(newcomer, capacity)
        except RoomFull:
            assert len(self.inside) >= capacity
            return
        self.tell(notices)
        self.inside[newcomer.session] = newcomer
        self.pictures[newcomer.session] = {
            entry.id: (entry.state, entry.polite) for entry in self.room.roster(newcomer.session)
        }

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), what=st.sampled_from(["leave", "suspend", "resume"]))
    def change(self, data, what):
        session = data.draw(st.sampled_from(sorted(self.inside)))
        if what == "leave":
            del self.inside[session]
            del self.pictures[session]
            self.tell(self.room.leave(session, "left"))
        else:
            self.tell(getattr(self.room, what)(session))

    @invariant()
    def every_picture_is_true(self):
        for session, picture in self.pictures.items():
            roster = {e.id: (e.state, e.polite) for e in self.room.roster(session)}
            assert picture == roster

    @invariant()
    def roles_are_opposite(self):
        for session, one in self.inside.items():
            for entry in self.room.roster(session):
                other = next(m for m in self.inside.values() if m.peer == entry.id)
                back = next(e for e in self.room.roster(other.session) if e.id == one.peer)
                assert entry.polite is not back.polite


TestRoomMachine = RoomMachine.TestCase
TestRoomMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
