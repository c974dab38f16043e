"""The ``peerjs`` client as npm has it, in Chromium, on two nodes behind one Redis."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from signaling.auth import Tokens
from tests.interop.cluster import Node, balancer, cluster
from tests.npm_packages import npm_package

pytestmark = pytest.mark.asyncio(loop_scope="session")
SECRET = "a secret of the PeerJS tests, of 32 bytes"

HELPERS = """
window.heard = [];
window.note = (...what) => window.heard.push(what.join(" "));
window.start = (id, options = {}) => new Promise((resolve, reject) => {
  const peer = new Peer(id, {
    host: location.hostname, port: location.port, path: "/peerjs", config: { iceServers: [] },
    ...options,
  });
  window.peer = peer;
  peer.on("open", (id) => { note("open", id); resolve(id); });
  peer.on("error", (error) => { note("error", error.type); reject(error.type); });
  peer.on("disconnected", () => note("disconnected"));
  peer.on("connection", (connection) => {
    connection.on("data", (data) => {
      note("data", connection.peer, JSON.stringify(connection.metadata), data);
      connection.send("re: " + data);
    });
  });
  peer.on("call", async (call) => {
    call.on("stream", () => note("stream", call.peer));
    call.answer(await navigator.mediaDevices.getUserMedia({ audio: true, video: true }));
  });
});
window.ask = (id, data) => new Promise((resolve, reject) => {
  peer.on("error", (error) => reject(error.type));
  const connection = peer.connect(id, { reliable: true, metadata: { from: peer.id } });
  connection.on("open", () => connection.send(data));
  connection.on("data", (answer) => { connection.close(); resolve(answer); });
});
window.callTo = async (id) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  const call = peer.call(id, stream);
  return new Promise((resolve) => call.on("stream", async (theirs) => {
    const video = document.createElement("video");
    video.srcObject = theirs;
    video.muted = true;
    await video.play();
    const look = () => video.currentTime > 0.5 ? resolve(true) : setTimeout(look, 50);
    look();
  }));
};
null;
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two nodes without tokens."""
    with cluster(tmp_path_factory.mktemp("nodes"), peerjs=True, peerjs_discovery=True) as running:
        yield running


@asynccontextmanager
async def page(browser: Browser, url: str) -> AsyncIterator[Page]:
    """A page with nothing on it but the unmodified client."""
    script = npm_package("peerjs") / "dist" / "peerjs.min.js"
    context = await browser.new_context(bypass_csp=True, permissions=["camera", "microphone"])
    made = await context.new_page()
    await made.goto(url + "/assets/client/sdp.js")
    await made.add_script_tag(path=script)
    await made.evaluate(HELPERS)
    try:
        yield made
    finally:
        await context.close()


async def heard(where: Page) -> list[Any]:
    """What the page has noted."""
    found: list[Any] = await where.evaluate("heard")
    return found


async def test_data_and_a_call_between_two_nodes(browser: Browser, nodes: list[Node]):
    async with page(browser, nodes[0].url) as one, page(browser, nodes[1].url) as two:
        assert await one.evaluate("start('ada')") == "ada"
        given = await two.evaluate("start()")  # the server gives the id
        assert len(given) == 36
        assert await one.evaluate(f"ask('{given}', 'hello')") == "re: hello"
        assert 'data ada {"from":"ada"} hello' in await heard(two)
        assert await two.evaluate("ask('ada', 'and back')") == "re: and back"
        assert await one.evaluate(f"callTo('{given}')") is True
        assert "stream ada" in await heard(two)
        ids = await one.evaluate("new Promise((resolve) => peer.listAllPeers(resolve))")
        assert sorted(ids) == sorted(["ada", given])


async def test_nobody_there_an_id_taken_and_a_wrong_key(browser: Browser, nodes: list[Node]):
    async with page(browser, nodes[0].url) as one, page(browser, nodes[1].url) as two:
        await one.evaluate("start('cleo')")
        refused = "(reason) => reason"
        assert await two.evaluate(f"start('cleo').catch({refused})") == "unavailable-id"
        assert await two.evaluate(f"start('dan', {{key: 'x'}}).catch({refused})") == "invalid-key"
        assert await one.evaluate(f"ask('nobody', 1).catch({refused})") == "peer-unavailable"


async def test_who_leaves_frees_the_id_for_a_reload_elsewhere(browser: Browser, nodes: list[Node]):
    async with page(browser, nodes[0].url) as one, page(browser, nodes[1].url) as two:
        await one.evaluate("start('eve')")
        await two.evaluate("start('fred')")
        await one.goto("about:blank")
        async with page(browser, nodes[1].url) as again:
            assert await again.evaluate("start('eve')") == "eve"
            assert await two.evaluate("ask('eve', 1)") == "re: 1"


async def test_a_node_is_killed_and_its_client_goes_on_at_the_other(
    browser: Browser, tmp_path: Path
):
    with cluster(tmp_path, peerjs=True) as nodes:
        async with (
            balancer([nodes[1], nodes[0]]) as network,
            page(browser, nodes[0].url) as one,
            page(browser, network.url) as two,
        ):
            await one.evaluate("start('ada')")
            await two.evaluate("start('bob')")
            await one.evaluate(
                """() => new Promise((resolve) => {
                  window.open_connection = peer.connect("bob");
                  open_connection.on("open", resolve);
                  open_connection.on("data", (data) => note("answer", data));
                })"""
            )
            nodes[1].kill()
            await two.wait_for_function("heard.includes('disconnected')")
            # What connects the two goes on; nobody was told that anybody left.
            await one.evaluate("open_connection.send('still there?')")
            await one.wait_for_function("heard.includes('answer re: still there?')")
            # Same id, same token, another node: OPEN again, and new connections both ways.
            await two.evaluate("peer.reconnect()")
            await two.wait_for_function("heard.filter((each) => each === 'open bob').length === 2")
            assert await one.evaluate("ask('bob', 'new')") == "re: new"
            assert await two.evaluate("ask('ada', 'back')") == "re: back"


async def test_with_join_tokens(browser: Browser, tmp_path: Path):

    def token(room: str) -> str:
        return Tokens([SECRET]).mint({"room": room, "exp": time.time() + 60})

    with cluster(tmp_path, peerjs=True, token_secret=SECRET) as nodes:
        async with page(browser, nodes[0].url) as one, page(browser, nodes[1].url) as two:
            assert await one.evaluate("start('ada').catch((r) => r)") == "server-error"
            mine = {"token": token("r")}
            assert await one.evaluate("(options) => start('ada', options)", mine) == "ada"
            assert await two.evaluate("(options) => start('bob', options)", mine) == "bob"
            assert await one.evaluate("ask('bob', 'hello')") == "re: hello"
