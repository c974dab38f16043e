"""Run all tests, four files at a time; the few that fail are run again, alone: what CI runs.

Many tests wait for something real, and what runs beside them may take its time. What fails alone
too has failed. What does not is told at the end as unsteady: a fault to be mended, of the test or
of the product, but no reason to refuse everything else. Chaos and fuzz are there to find what is
rare: what they find counts the first time.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Most of the time a test waits. Each file stays whole: what it starts, its tests share.
TOGETHER = ("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder", "--cache-clear")
COVERAGE = ("--cov", "--cov-report=")
SLOWEST = ("--durations=30", "--durations-min=5")
FAILED_BEFORE = Path(".pytest_cache/v/cache/lastfailed")
MOST_AGAIN = 5
FIRST_TIME_COUNTS = ("tests/chaos/", "tests/fuzz/", "tests/property/")


def main(arguments: Sequence[str]) -> int:
    """Run them; gives pytest's exit code."""
    code = _pytest(*TOGETHER, *COVERAGE, *SLOWEST, *arguments)
    if code != 1:  # tests have failed; anything else is no matter of tests
        return code
    failed = sorted(json.loads(FAILED_BEFORE.read_text()))
    if not may_be_asked_again(failed):
        return code
    print(f"\n{len(failed)} failed beside others; again, alone:", flush=True)
    if code := _pytest(
        "--last-failed", "--last-failed-no-failures=none", *COVERAGE, "--cov-append"
    ):
        return code
    for name in failed:
        print(f"UNSTEADY: {name} failed beside other tests and passed alone; mend it")
    return 0


def may_be_asked_again(failed: Sequence[str]) -> bool:
    """Whether these names of tests are few, and none is of a kind that finds what is rare."""
    rare = [name for name in failed if name.startswith(FIRST_TIME_COUNTS)]
    return 0 < len(failed) <= MOST_AGAIN and not rare


def _pytest(*arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
