"""What is remembered of users whom a back end alone knows."""

import pytest

from turn.auth import users
from turn.auth.users import LONGEST_UNPROVED, NOBODY, Keys, NotKnown, Users

ALICE = Keys(bytes(16), bytes(32))
OTHER = Keys(b"k" * 16)


@pytest.fixture
def known():
    made = Users()
    made.remember = 60.0
    return made


def is_known(known, name, now):
    try:
        return known.get(name, now)
    except NotKnown:
        return None


def test_a_name_that_nobody_has_proved_is_kept_no_longer_than_a_no(known):
    """Else the time that an answer takes would tell whose name is somebody's."""
    known.put("alice", (ALICE,), 0.0)
    known.put("mallory", NOBODY, 0.0)
    for name in ("alice", "mallory"):
        assert is_known(known, name, LONGEST_UNPROVED - 0.1) is not None
        assert is_known(known, name, LONGEST_UNPROVED) is None


def test_a_user_s_answer_holds_as_long_as_it_is_to(known):
    known.put("alice", (ALICE,), 0.0)
    known.prove("alice", ALICE)
    assert is_known(known, "alice", 59.9) == (ALICE,)
    assert is_known(known, "alice", 60.0) is None
    known.prove("alice", ALICE)  # it does not hold longer for being used
    assert is_known(known, "alice", 60.0) is None


def test_a_no_ends_what_was_said_before(known):
    known.put("alice", (ALICE,), 0.0)
    known.prove("alice", ALICE)
    known.put("alice", NOBODY, 1.0)
    assert is_known(known, "alice", 2.0) == NOBODY


@pytest.mark.parametrize("said", [NOBODY, (OTHER,)])
def test_who_proves_an_old_key_makes_no_other_word_hold(known, said):
    """A live allocation's key is good as long as it lives, and says nothing of the next one."""
    known.put("alice", said, 0.0)
    known.prove("alice", ALICE)
    assert is_known(known, "alice", LONGEST_UNPROVED) is None


def test_a_flood_of_names_pushes_no_user_out(known, monkeypatch):
    monkeypatch.setattr(users, "MOST_NAMES", 100)
    monkeypatch.setattr(users, "MOST_USERS", 10)
    known.put("alice", (ALICE,), 0.0)
    known.prove("alice", ALICE)
    for number in range(1000):
        known.put(f"name {number}", (OTHER,) if number % 2 else NOBODY, 0.0)
    assert is_known(known, "alice", 1.0) == (ALICE,)
    assert len(known) == 101
    for number in range(100):
        known.put(f"user {number}", (OTHER,), 0.0)
        known.prove(f"user {number}", OTHER)
        known.prove("alice", ALICE)  # who comes often stays
    assert is_known(known, "alice", 1.0) == (ALICE,)
    assert len(known._proved) == 10


def test_nothing_is_kept_where_nothing_is_to_be(known):
    known.remember = 0.0
    known.put("alice", (ALICE,), 0.0)
    known.prove("alice", ALICE)
    assert is_known(known, "alice", 0.0) is None
    assert len(known) == 0


@pytest.mark.parametrize(
    ("keys", "sound"),
    [
        (ALICE, True), (OTHER, True), (Keys(sha256=bytes(32)), True), (Keys(), False),
        (Keys(bytes(15)), False), (Keys(bytes(16), bytes(31)), False),
    ],
)  # fmt: skip
def test_what_a_key_is(keys, sound):
    assert keys.are_sound == sound
