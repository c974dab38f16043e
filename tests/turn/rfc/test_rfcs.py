"""Each MUST of the two RFCs has a test, or a line in ARCHITECTURE.md that says why it has none."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.turn.rfc import rfc8489, rfc8656

ROOT = Path(__file__).parents[3]
TABLES = {"RFC 8489": rfc8489.ROWS, "RFC 8656": rfc8656.ROWS}
ALL = [(rfc, row) for rfc, rows in TABLES.items() for row in rows]


def place(section: str) -> tuple[int, ...]:
    """A section's number, to sort by."""
    return tuple(int(part) for part in section.split("."))


@pytest.fixture(scope="module", name="collected")
def collected_fixture():
    """What pytest collects in the files that the tables name, without parameters."""
    files = sorted({f"tests/{test.partition('::')[0]}" for _, row in ALL for test in row.tests})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}


def test_every_named_test_is_collected(collected):
    named = {f"tests/{test}" for _, row in ALL for test in row.tests}
    assert named - collected == set()


@pytest.mark.parametrize("rfc", TABLES)
def test_the_rows_stand_in_the_rfcs_order_and_say_each_their_own(rfc):
    rows = TABLES[rfc]
    assert [row.section for row in rows] == sorted((row.section for row in rows), key=place)
    assert len({(row.section, row.gist) for row in rows}) == len(rows)
    assert all(len(row.gist) > 10 for row in rows)


def test_what_has_no_test_is_told_with_its_reason():
    """ARCHITECTURE.md has a line for each, and none for what has a test by now."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    _, _, rest = text.partition("## What the RFCs ask for and no test shows")
    told = re.findall(
        r"^- \*\*(RFC \d+ §[\d.]+)\*\* (.+)", rest.partition("\n## ")[0], re.MULTILINE
    )
    untested = [f"{rfc} §{row.section}" for rfc, row in ALL if not row.tests]
    assert sorted(section for section, _ in told) == sorted(untested)
    assert all(len(reason) > 40 for _, reason in told)
