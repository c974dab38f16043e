"""``python -m tests.churn``: a day's churn, 100,000 allocations and as many joins; minutes."""

import argparse
import tempfile
import time
from pathlib import Path

from tests.churn.run import check, churn


def main() -> None:
    """Churn, and say what was held before and after."""
    parser = argparse.ArgumentParser(prog="python -m tests.churn", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="allocations, and joins")
    count = parser.parse_args().count
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = churn(Path(folder), count)
    seconds = time.monotonic() - begin
    print(f"twice {count:,} allocations and {count:,} joins in {seconds:.0f} s")
    print(f"{'':12} {'before':>12} {'after':>12}\n{outcome.table()}")
    check(outcome, count)


if __name__ == "__main__":
    main()
