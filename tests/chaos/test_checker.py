"""The checker sees what it is there to see."""

import pytest

from tests.chaos.checker import Line, complaints, present

GOOD = {
    "a": [
        Line("began", "1"),
        Line("join", "2"),
        Line("sent", "2", "a", 0),
        Line("sent", "2", "a", 1),
    ],
    "b": [
        Line("began", "2"),
        Line("roster", "1"),
        Line("got", "1", "a", 0),
        Line("got", "1", "a", 1),
    ],
}


def changed(name, *log):
    return {**GOOD, name: list(log)}


def test_a_good_run_gives_no_complaint():
    assert complaints(GOOD) == []


@pytest.mark.parametrize(
    ("logs", "words"),
    [
        (changed("b", *GOOD["b"][:3]), "b never got 1 of a"),
        (changed("b", *GOOD["b"], GOOD["b"][-1]), "b got 1 of a after 1"),
        (changed("b", *GOOD["b"][:2], GOOD["b"][3], GOOD["b"][2]), "b got 0 of a after 1"),
        (changed("b", *GOOD["b"], Line("got", "2", "a", 2)), "b got 2 of a as from b"),
        (changed("b", *GOOD["b"], Line("leave", "1"), Line("leave", "1")), "heard leave of 1"),
        (changed("b", *GOOD["b"], Line("leave", "9")), "heard leave of 9, which was away"),
        (changed("b", *GOOD["b"], Line("leave", "1"), Line("resumed", "1")), "heard resumed of 1"),
        (changed("b", *GOOD["b"], Line("join", "1")), "heard join of 1, which was here"),
    ],
)
def test_each_broken_promise_is_told(logs, words):
    assert any(words in complaint for complaint in complaints(logs))


def test_who_was_told_of_a_loss_may_miss_something():
    assert complaints(changed("b", *GOOD["b"][:3], Line("began", "3"))) == []


def test_who_is_there_at_the_end():
    log = [Line("began", "1"), Line("roster", "2"), Line("join", "3"), Line("leave", "2")]
    assert present(log) == {"3"}
    assert present([*log, Line("began", "4")]) == set()
