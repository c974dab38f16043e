"""What the tests take from npm: pinned in tests/npm, fetched by tests/install.sh."""

from pathlib import Path

import pytest

from tests.conftest import IN_CI

NPM = Path(__file__).parent / "npm"


def npm_package(name: str) -> Path:
    """A package's folder. In CI a missing one is a failure, elsewhere the test is skipped."""
    folder = NPM / "node_modules" / name
    if folder.is_dir():
        return folder
    message = f"the npm package {name} is missing; tests/install.sh fetches it"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)
