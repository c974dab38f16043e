"""What CI skips: nothing but what no installation would help."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPS = """
import pytest

@pytest.mark.skipif(True, reason="REASON")
def test_by_a_mark():
    pass

def test_by_itself():
    pytest.skip("REASON")

def test_by_what_it_needs():
    pytest.importorskip("no_such_module", reason="REASON")

def test_good():
    pass
"""


@pytest.mark.parametrize(
    ("ci", "reason", "told"),
    [
        ("true", "not installed", "2 failed, 1 passed, 1 error"),
        ("true", "this kernel has no vlan devices", "1 passed, 3 skipped"),
        ("", "not installed", "1 passed, 3 skipped"),
    ],
)
def test_ci_skips_nothing_that_could_be_there(tmp_path: Path, ci: str, reason: str, told: str):
    (tmp_path / "test_skips.py").write_text(SKIPS.replace("REASON", reason))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "--no-cov", "-p", "tests.conftest"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert told in done.stdout, done.stdout + done.stderr


def test_only_the_pure_codes_own_tests_are_counted(tmp_path: Path):
    (tmp_path / "two_ways.py").write_text("def one():\n    return 1\n\ndef two():\n    return 2\n")
    for place, name in (("tests/turn/codec", "one"), ("tests/interop", "two")):
        (tmp_path / place).mkdir(parents=True)
        text = f"import two_ways\n\ndef test_it():\n    assert two_ways.{name}()\n"
        (tmp_path / place / f"test_{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-p", "tests.conftest",
         "--cov=two_ways", "--cov-report=term-missing"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("two_ways.py")]
    assert line.split()[-1] == "5", done.stdout
