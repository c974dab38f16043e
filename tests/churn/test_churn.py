"""A little churn, each time: what comes and goes leaves nothing behind."""

from pathlib import Path

from tests.churn.run import check, churn

COUNT = 1_000


def test_nothing_is_left_of_those_who_have_gone(tmp_path: Path):
    check(churn(tmp_path, COUNT, reply_lifetime=1), COUNT)
