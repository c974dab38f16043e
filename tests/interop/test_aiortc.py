"""A back end as a peer: aiortc over the Python client, in a call with a Chromium page."""

from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.interop.bot import bot
from tests.interop.browser import Caller, stage
from tests.patience import until

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser is of all


@pytest.mark.parametrize("first", ["page", "bot"])
@pytest.mark.parametrize("relay", ["", "1"])
async def test_a_back_end_calls_a_page(tmp_path: Path, browser: Browser, first: str, relay: str):
    async with stage(tmp_path) as server:
        context = await browser.new_context(permissions=["camera", "microphone"])
        page = Caller(await context.new_page())
        await page.open(server.url, "bots", "Anna", relay=relay)
        if first == "page":
            await page.join()
        async with bot(server.websocket, "bots") as made:
            if first == "bot":
                await page.join()
            (call,) = await page.hears_and_sees("Bot")
            assert (call["local"] == "relay") == bool(relay)
            await page.page.click("[data-testid=chat]")
            await page.page.fill("[data-testid=chat-input]", "Hello bot")
            await page.page.press("[data-testid=chat-input]", "Enter")
            await until(lambda: min(made.frames.values()) >= 10)
            await until(lambda: any("Hello bot" in text for text in made.heard))
        await page.page.wait_for_selector("html[data-peers='0']")
        assert page.problems == []
