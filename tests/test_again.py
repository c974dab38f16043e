"""What `make check` forgives, and what it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import again

UNSTEADY = """
from pathlib import Path

def test_it():
    been = Path("been")
    seen = been.exists()
    been.touch()
    assert seen
"""
BROKEN = "def test_it():\n    assert False\n"
GOOD = "def test_it():\n    pass\n"


@pytest.mark.parametrize(
    ("suite", "code", "told"),
    [
        ({"test_a.py": GOOD}, 0, "1 passed"),
        ({"test_a.py": UNSTEADY, "test_b.py": GOOD}, 0, "UNSTEADY: test_a.py::test_it"),
        ({"test_a.py": UNSTEADY, "test_b.py": BROKEN}, 1, "1 failed, 1 passed"),
        ({"tests/chaos/test_a.py": UNSTEADY}, 1, "1 failed"),
        ({"test_a.py": "this is no Python"}, 2, "1 error"),
    ],
)
def test_one_that_fails_is_asked_once_more(
    tmp_path: Path, suite: dict[str, str], code: int, told: str
):
    for name, text in suite.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, again.__file__, "-n", "0", "--no-cov"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, told in done.stdout) == (code, True), done.stdout + done.stderr


def test_many_are_no_accident():
    names = [f"tests/test_a.py::test_{number}" for number in range(again.MOST_AGAIN + 1)]
    assert not again.may_be_asked_again(names)
    assert again.may_be_asked_again(names[1:])
    assert not again.may_be_asked_again([])
