"""The browser client's connection against a server that follows a script."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.signaling.scripted import (
    Part,
    Socket,
    begins,
    hears_nothing,
    is_replaced,
    serving,
    takes_no_token,
    welcome,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser is of all

ASK = """async (url) => {
  const { Connection } = await import("/assets/client/connection.js");
  const connection = new Connection({ url, random: () => 0 });
  const begun = new Promise((resolve) => connection.once("welcome", resolve));
  connection.open();
  await begun;
  return connection.request({ type: "message", data: 1 }).then(
    (answer) => answer.status,
    (error) => error.code,
  );
}"""


ENDS = """async (url) => {
  const { Connection } = await import("/assets/client/connection.js");
  const connection = new Connection({ url, random: () => 0, token: TOKEN });
  const error = await new Promise((resolve) => {
    connection.on("close", resolve);
    connection.open();
  });
  return JSON.stringify({ code: error.code, message: error.message });
}"""


@pytest_asyncio.fixture(name="page", loop_scope="session")
async def page_fixture(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


async def outcome(page: Page, *parts: Part, ask: str = ASK) -> str:
    """What becomes of a message to a server of these parts: its status, or why the end came."""
    async with serving(*parts) as address:
        home = address.replace("ws://", "http://").removesuffix("/ws")
        await page.goto(f"{home}/assets/client/sdp.js")
        found: str = await page.evaluate(ask, address)
        await page.goto("about:blank")
        return found


async def goes_on(ws: Socket) -> None:
    await welcome(ws, "one", resumed=True)
    async for frame in ws:
        answer = {"type": "ok", "id": json.loads(frame.data)["id"], "status": "delivered"}
        await ws.send_json(answer)


async def test_a_hello_of_its_own_that_is_heard_late_does_not_end_it(page: Page):
    """A node that slept takes the session over, for a socket that the page gave up long ago."""
    assert await outcome(page, begins, hears_nothing, is_replaced, goes_on) == "delivered"


@pytest.mark.parametrize(("token", "expired"), [("'once good'", True), ("() => 'not good'", False)])
async def test_a_token_that_was_good_once_may_have_expired(page: Page, token: str, expired: bool):
    """A session goes on without it; where that is lost, another one has to begin."""
    found = json.loads(
        await outcome(page, begins, takes_no_token, ask=ENDS.replace("TOKEN", token))
    )
    assert found["code"] == "unauthorized"
    assert found["message"].startswith("the join token is not good")
    assert ("may have expired" in found["message"]) is expired


async def test_a_session_that_somebody_else_has_is_not_fought_for(page: Page):
    assert await outcome(page, begins, is_replaced) == "replaced"
    # Each hello that was given up excuses one such end, and no more.
    assert await outcome(page, begins, hears_nothing, is_replaced, is_replaced) == "replaced"


async def acknowledged_first(ws: Socket) -> None:
    """A node without its Redis does what it was asked when its own number is acknowledged."""
    await welcome(ws, "one")
    asked = await ws.receive_json()
    await ws.send_json({"type": "jump", "seq": 1_000_000})
    while (said := await ws.receive_json())["type"] != "ack":
        pass
    status = "delivered" if said["seq"] == 1_000_000 else "queued"
    await ws.send_json({"type": "ok", "id": asked["id"], "status": status})
    await ws.receive()


async def test_a_jump_is_acknowledged(page: Page):
    assert await outcome(page, acknowledged_first) == "delivered"
