"""``pair()``: a page that keeps its own RTCPeerConnection; a node dies, a page is reloaded."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, Page

from tests.interop.cluster import Node, balancer, cluster
from tests.signaling.live import Raw

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser is of all

APPLICATION = """
window.got = [];
window.ended = [];
window.fresh = [];
window.call = async (room, options = {}) => {
  const { pair } = await import("/client.js");
  window.signaler = await pair(room, options);
  const { polite, iceServers } = signaler;
  window.pc = new RTCPeerConnection({ iceServers });
  let offering = false, ignoring = false;
  pc.onicecandidate = ({ candidate }) => signaler.send({ candidate });
  pc.onnegotiationneeded = async () => {
    offering = true;
    await pc.setLocalDescription();
    offering = false;
    signaler.send({ description: pc.localDescription });
  };
  pc.ondatachannel = ({ channel }) => {
    channel.onmessage = ({ data }) => got.push(data);
  };
  signaler.onmessage = async ({ data: { description, candidate } }) => {
    if (!description) {
      await pc.addIceCandidate(candidate).catch((error) => { if (!ignoring) throw error; });
      return;
    }
    const collision = description.type === "offer" && (offering || pc.signalingState !== "stable");
    ignoring = collision && !polite;
    if (ignoring) return;
    await pc.setRemoteDescription(description);
    if (description.type === "offer") {
      await pc.setLocalDescription();
      signaler.send({ description: pc.localDescription });
    }
  };
  signaler.onclose = (error) => { pc.close(); ended.push(error?.code ?? "gone"); };
  signaler.oniceservers = (iceServers) => {
    pc.setConfiguration({ iceServers });
    fresh.push(iceServers);
  };
};
window.say = (text) => {
  const channel = pc.createDataChannel(text);
  channel.onopen = () => channel.send(text);
};
null;
"""


@pytest.fixture(name="nodes", scope="module")
def nodes_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two nodes that nobody kills; each test has a room of its own."""
    with cluster(tmp_path_factory.mktemp("nodes")) as running:
        yield running


@asynccontextmanager
async def page_at(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page of an application, which has not called anybody yet; no handler of it may fail."""
    context = await browser.new_context(bypass_csp=True)
    faults: list[str] = []
    page = await context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    await opened(page, url)
    try:
        yield page
    finally:
        await context.close()
    assert faults == []


async def opened(page: Page, url: str) -> None:
    """Load the page (again)."""
    await page.goto(url + "/assets/client/sdp.js")
    await page.evaluate(APPLICATION)


async def talk(one: Page, other: Page, word: str) -> None:
    """Both open a channel, at once: both offer, and both are heard."""
    await one.evaluate("say", f"{word} one")
    await other.evaluate("say", f"{word} other")
    await other.wait_for_function("(text) => got.includes(text)", arg=f"{word} one")
    await one.wait_for_function("(text) => got.includes(text)", arg=f"{word} other")


async def meet(one: Page, other: Page, room: str) -> None:
    """Both want a call, and get each other."""
    await one.evaluate("(room) => { window.meeting = call(room); }", room)
    await other.evaluate("(room) => { window.meeting = call(room); }", room)
    await one.evaluate("meeting")
    await other.evaluate("meeting")


async def test_both_offer_at_once_and_a_node_dies(browser: Browser, tmp_path: Path):
    with cluster(tmp_path) as nodes:
        await both_offer_and_one_dies(browser, nodes)


async def both_offer_and_one_dies(browser: Browser, nodes: list[Node]) -> None:
    async with (
        balancer([nodes[1], nodes[0]]) as front,
        page_at(browser, nodes[0].url) as ada,
        page_at(browser, front.url) as bob,
    ):
        await meet(ada, bob, "two nodes")
        await talk(ada, bob, "before")
        nodes[1].kill()
        await talk(ada, bob, "after")  # a new channel goes over the connection that there is
        await bob.evaluate("pc.restartIce()")
        await bob.wait_for_function("fresh.length > 0")  # of the node that took the session over
        await bob.wait_for_function("pc.iceConnectionState === 'connected'")
        await talk(bob, ada, "anew")
        assert await ada.evaluate("ended") == []


async def test_who_reloads_meets_the_other_again_at_once(browser: Browser, nodes: list[Node]):
    async with page_at(browser, nodes[0].url) as ada, page_at(browser, nodes[1].url) as bob:
        await meet(ada, bob, "reload")
        await talk(ada, bob, "before")
        await opened(ada, nodes[0].url)
        await bob.wait_for_function("ended.length === 1")
        assert await bob.evaluate("ended") == ["gone"]
        await meet(bob, ada, "reload")
        await talk(ada, bob, "again")


async def test_what_is_sent_at_the_end_fails_for_who_awaits_it(browser: Browser, nodes: list[Node]):
    """The sample awaits nothing that it sends; ``page_at`` sees that nothing fails unhandled."""
    async with page_at(browser, nodes[0].url) as ada, page_at(browser, nodes[1].url) as bob:
        await meet(ada, bob, "the end")
        awaited = await ada.evaluate(
            """async () => {
              const ends = [];
              for (const time of ["pending", "over"]) {
                signaler.send({ candidate: null });
                const awaited = signaler.send({ candidate: null });
                if (time === "pending") signaler.close();
                ends.push(await awaited.catch((error) => error.code));
              }
              return ends;
            }"""
        )
        assert awaited == ["closed", "closed"]
        assert await ada.evaluate("ended") == ["gone"]


async def test_what_fails_and_is_not_awaited_is_told(browser: Browser, nodes: list[Node]):
    async with page_at(browser, nodes[0].url) as ada, page_at(browser, nodes[1].url) as bob:
        await meet(ada, bob, "too much")
        told = await ada.evaluate(
            """() => new Promise((resolve) => {
              signaler.onerror = ({ code }) => resolve(code);
              signaler.send({ candidate: { candidate: "x".repeat(1 << 20) } });
            })"""
        )
        assert told == "too_large"
        assert await ada.evaluate("ended") == []


async def test_who_may_never_come_back_is_not_met(browser: Browser, nodes: list[Node]):
    """A session whose page is gone without a word stays in the room for a while."""
    async with aiohttp.ClientSession() as http:
        ghost = Raw(await http.ws_connect(f"{nodes[0].url}/ws", protocols=("icebroker.v1",)))
        await ghost.hello()
        await ghost.join("ghosts")
        await ghost.ws.close(code=4000)
    async with page_at(browser, nodes[0].url) as ada, page_at(browser, nodes[1].url) as bob:
        await meet(ada, bob, "ghosts")
        await talk(ada, bob, "here")


async def test_a_server_that_is_not_there_is_told(browser: Browser, nodes: list[Node]):
    async with page_at(browser, nodes[0].url) as ada:
        told = await ada.evaluate(
            "call('r', { url: 'ws://127.0.0.1:1/ws', timeout: 500 })"
            ".catch((error) => [error.code, error.retryable])"
        )
        assert told == ["unreachable", True]


async def test_an_address_of_no_websocket_is_told_at_once(browser: Browser, nodes: list[Node]):
    async with page_at(browser, nodes[0].url) as ada:
        told = await ada.evaluate(
            "call('r', { url: 'wss://host/ws#a' })"
            ".catch((error) => [error.code, error.retryable, error.cause.name])"
        )
        assert told == ["bad_url", False, "SyntaxError"]
