"""A page in a room with somebody who says what no browser does: its calls with others go on."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from signaling.client import Client
from tests.interop.browser import Stage, blank_page

pytestmark = pytest.mark.asyncio(loop_scope="session")
ORIGINS = itertools.count(1)
WATCH = """() => {
  window.made = 0;
  window.faults = [];
  const Real = RTCPeerConnection;
  window.RTCPeerConnection = function (...all) { window.made += 1; return new Real(...all); };
  addEventListener("unhandledrejection", (event) => window.faults.push(String(event.reason)));
  addEventListener("error", (event) => window.faults.push(event.message));
}"""
JOIN = """async (room) => {
  window.room = new icebroker.Icebroker().room(room, { receive: ["audio"] });
  window.room.on("error", () => {});
  window.got = {};
  window.room.on("data", (peer, value) => { window.got[peer.name] = value; });
  await window.room.join();
}"""
ODD_DESCRIPTIONS: list[Any] = [
    5, "x", [], {"type": "offer"}, {"type": "offer", "sdp": {}}, {"type": "rollback"},
    {"type": "offer", "sdp": {"toString": 1}}, {"type": "pranswer", "sdp": "x"},
    {"type": {"toString": 1}, "sdp": "v=0"}, {"__proto__": {"type": "offer"}},
    {"type": "answer", "answers": {"toString": 1}},
]  # fmt: skip
ODD_CANDIDATES: list[Any] = [
    5, "x", [], {"usernameFragment": {"toString": 1}}, {"candidate": {"toString": 1}},
    {"candidate": "candidate:x"}, {"candidate": "candidate:1 1 udp 1 127.0.0.1 22 typ host"},
]  # fmt: skip


async def page_in(browser: Browser, server: Stage, room: str) -> Page:
    """A page that has joined a room, and counts its connections."""
    page = await blank_page(await browser.new_context(), server.url)
    await page.evaluate(WATCH)
    await page.evaluate(JOIN, room)
    return page


class Mallory:
    """Joins first, so that the page offers; answers with offers of its own."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.victim = ""
        self.sdp = ""
        self.answers = 0
        self._task: asyncio.Task[None] | None = None

    async def meet(self, room: str) -> None:
        """Enter the room and listen from now on."""
        await self.client.join(room)
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self.client.events():
            description = event.get("description") or {}
            if description.get("type") == "offer":
                self.victim, self.sdp = event["from"], description["sdp"]
            self.answers += description.get("type") == "answer"

    async def answer(self) -> None:
        """Wait for the page's offer, and answer it as if we were a browser that has it, too."""
        async with asyncio.timeout(10):
            while not self.sdp:  # noqa: ASYNC110 - set by _listen
                await asyncio.sleep(0.05)
        sdp = re.sub(r"o=- \d+ \d+", "o=- 5 1", self.sdp).replace("actpass", "active")
        sdp = sdp.replace("recvonly", "inactive")
        await self.client.signal(self.victim, description={"type": "answer", "sdp": sdp})

    async def offer(self, origin: int, version: int) -> None:
        """Send the page's own offer back, as that of such a connection of ours."""
        sdp = re.sub(r"o=- \d+ \d+", f"o=- {origin} {version}", self.sdp)
        await self.client.signal(self.victim, description={"type": "offer", "sdp": sdp})

    async def offer_for_ever(self) -> None:
        """As fast as the server takes it."""
        for version in itertools.count(2):
            await self.offer(5, version)


@pytest_asyncio.fixture(loop_scope="session")
async def mallory(server: Stage) -> AsyncIterator[Mallory]:
    async with Client(server.websocket, name="Mallory") as client:
        made = Mallory(client)
        yield made
        if made._task is not None:
            made._task.cancel()


async def talks(page: Page, other: Page) -> bool:
    """Whether what one page writes to all arrives at the other, within a while."""
    word = f"word {next(ORIGINS)}"
    for _ in range(60):
        await other.evaluate("(word) => { try { room.send(word); } catch {} }", word)
        got: dict[str, Any] = await page.evaluate("window.got")
        if word in got.values():
            return True
        await asyncio.sleep(0.25)
    return False


async def test_a_peer_that_is_new_again_and_again(
    server: Stage, browser: Browser, mallory: Mallory
):
    """Each new connection of his would be one of the page's, with sockets and a relay's port."""
    await mallory.meet("again")
    page = await page_in(browser, server, "again")
    await mallory.answer()
    for number in range(400):
        await mallory.offer(1000 + number, 1)
    assert await page.evaluate("window.made") < 20
    assert await talks(page, await page_in(browser, server, "again"))


async def test_a_peer_that_never_stops_to_negotiate(
    server: Stage, browser: Browser, mallory: Mallory
):
    """Every offer is answered: without a limit the page has no messages left for the others."""
    await mallory.meet("never")
    page = await page_in(browser, server, "never")
    await mallory.answer()
    flood = asyncio.create_task(mallory.offer_for_ever())
    await asyncio.sleep(4)
    assert 0 < mallory.answers < 40
    assert await talks(page, await page_in(browser, server, "never"))
    flood.cancel()


async def test_a_peer_that_makes_no_sense(server: Stage, browser: Browser, mallory: Mallory):
    """What cannot be applied is an error of that peer's; what makes sense after it is applied."""
    await mallory.meet("odd")
    page = await page_in(browser, server, "odd")
    await mallory.answer()
    for description in ODD_DESCRIPTIONS:
        await mallory.client.signal(mallory.victim, description=description)
    for candidate in ODD_CANDIDATES:
        await mallory.client.signal(mallory.victim, candidate=candidate)
    # It may have begun afresh meanwhile: then its own offer has to be answered first.
    answers = mallory.answers
    for version in range(9, 29):
        await mallory.answer()
        await mallory.offer(5, version)
        await asyncio.sleep(1.5)
        if mallory.answers > answers:
            break
    else:
        pytest.fail("what makes sense is not applied any more")
    assert await page.evaluate("window.faults") == []
    assert await talks(page, await page_in(browser, server, "odd"))
