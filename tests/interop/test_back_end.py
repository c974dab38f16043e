"""The browser client where a back end decides who may come in."""

from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.interop.browser import blank_page, stage
from tests.receiver import SECRET, receiver

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser is of all

JOIN = """([how, token]) => icebroker[how]("demo", { token, name: "Ada" }).then(
  () => "in", (error) => error.code)"""


async def test_the_client_says_which_room_it_is_for(tmp_path: Path, browser: Browser):
    async with receiver() as back_end:
        settings = {"join_url": back_end.url, "webhook_secret": SECRET}
        async with stage(tmp_path, **settings) as server:
            page = await blank_page(await browser.new_context(), server.url)
            back_end.says(403)
            assert await page.evaluate(JOIN, ["join", "bad"]) == "unauthorized"
            back_end.says(allow=True)
            assert await page.evaluate(JOIN, ["join", "good"]) == "in"
            assert await page.evaluate(JOIN, ["pair", "good, too"]) == "in"
    asked = [(message["data"]["token"], message["data"]["room"]) for message in back_end.got]
    assert asked == [("bad", "demo"), ("good", "demo"), ("good, too", "demo")]
