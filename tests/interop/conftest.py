"""What tests of other clients share: the fixture ``connect``, one browser a file, both services."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.conftest import need
from tests.interop.browser import Stage, chromium, stage
from tests.turn.conftest import connect

__all__ = ["connect"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Both services."""
    async with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all; whoever calls by it has a profile of their own."""
    need("chromium")
    async with chromium() as running:
        yield running
