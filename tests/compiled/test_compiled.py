"""What mypyc makes of the core is held to the core's own tests."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compiled import ROOT, build
from tests.conftest import need

HELD_TO = (
    "tests/turn/codec", "tests/turn/auth", "tests/turn/allocation", "tests/turn/relay",
    "tests/turn/transport/test_udp.py", "tests/turn/test_journal.py", "tests/turn/test_server.py",
    "tests/turn/workers/test_pool.py", "tests/turn/kernel/test_equal.py",
    "tests/property",
)  # fmt: skip
REPLACES_A_PART = (
    "test_a_hundred_tenants_cost_a_false_credential_no_more",
    "test_what_was_read_is_paid_off_in_few_pieces",
    "test_a_ticker_that_died_is_told",
)
"""Tests that put something else in place of a method: what is compiled does not let them."""


@pytest.fixture(name="compiled", scope="module")
def compiled_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("gcc")
    found = build(tmp_path_factory.mktemp("compiled"))
    shutil.copytree(
        ROOT / "tests", found / "tests", ignore=shutil.ignore_patterns("npm", "__pycache__")
    )
    shutil.copy2(ROOT / "pyproject.toml", found)
    return found


def run(compiled: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=compiled, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_it_passes_the_tests_of_the_core(compiled: Path):
    words = " and ".join(f"not {name}" for name in REPLACES_A_PART)
    said = run(compiled, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", words, *HELD_TO)
    assert " passed" in said


@pytest.mark.timeout(900)
def test_it_says_so(compiled: Path):
    assert run(compiled, "-m", "icebroker", "--version").endswith(", compiled\n")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("module", ["turn.allocation.engine", "turn.codec.message", "turn.routes"])
def test_what_runs_is_what_was_compiled(compiled: Path, module: str):
    said = run(compiled, "-c", f"import {module} as one; print(one.__file__)")
    assert said.strip().endswith(".so")
    assert said.startswith(str(compiled))
