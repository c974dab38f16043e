"""What tests of other clients share: the fixture ``connect``, one browser, both services."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.conftest import need
from tests.interop.browser import Stage, chromium, stage
from tests.turn.conftest import connect

__all__ = ["connect"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Both services."""
    async with stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_browser() -> AsyncIterator[Browser]:
    """One browser for all files of a process: to begin is most of what a short test costs it."""
    need("chromium")
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def browser(one_browser: Browser) -> AsyncIterator[Browser]:
    """The browser; whoever calls by it has a profile of their own, which ends with the test."""
    yield one_browser
    for context in one_browser.contexts:
        await context.close()
