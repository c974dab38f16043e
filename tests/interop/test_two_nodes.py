"""Two Chromium pages on two nodes behind one Redis, and the callee's node dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.conftest import need
from tests.interop.browser import Caller, chromium
from tests.interop.cluster import Balancer, Node, balancer, cluster

HOLD_THE_ANSWER = """
window.held = false;
window.answers = new Promise((resolve) => { window.release = resolve; });
const set = RTCPeerConnection.prototype.setLocalDescription;
RTCPeerConnection.prototype.setLocalDescription = async function (description) {
  if (this.signalingState === "have-remote-offer") {
    window.held = true;
    await window.answers;
  }
  return set.call(this, description);
};
"""
"""A callee that has the offer, and answers when it is told to."""

ANSWERED = "[...icebroker.room.peers.values()].every((peer) => peer.pc.localDescription)"


class Stage:
    """Two nodes, a browser, and what is in front of the callee's node."""

    def __init__(self, nodes: list[Node], front: Balancer, browser: Browser) -> None:
        self.caller_s_node, self.callee_s_node = nodes
        self.front = front
        self._browser = browser
        self._callers: list[Caller] = []

    async def person(self, url: str, name: str, script: str = "") -> Caller:
        """Somebody who has joined the call at a node."""
        context = await self._browser.new_context(
            permissions=["camera", "microphone"], bypass_csp=True
        )
        if script:
            await context.add_init_script(script)
        caller = Caller(await context.new_page())
        self._callers.append(caller)
        await caller.open(url, "two nodes", name)
        await caller.join()
        return caller

    async def close(self) -> None:
        """Everyone goes; no page had a fault."""
        for caller in self._callers:
            await caller.page.context.close()
        assert [caller.problems for caller in self._callers] == [[] for _ in self._callers]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """The callee's page is loaded through a balancer, as behind a proxy: its own node first."""
    need("chromium")
    async with _stage(tmp_path) as made:
        yield made


@asynccontextmanager
async def _stage(folder: Path) -> AsyncIterator[Stage]:
    with cluster(folder) as nodes:
        async with balancer(reversed(nodes)) as front, chromium() as browser:
            made = Stage(nodes, front, browser)
            yield made
            await made.close()


async def test_a_call_goes_on_when_the_callee_s_node_is_killed(stage: Stage):
    bo = await stage.person(stage.front.url, "Bo")
    anna = await stage.person(stage.caller_s_node.url, "Anna")
    assert stage.callee_s_node.metrics()["icebroker_signaling_connections"] == 1
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    connection = (await anna.calls())[0]["id"]
    stage.callee_s_node.kill()
    await bo.page.wait_for_selector("html[data-signaling=open]")
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    assert (await anna.calls())[0]["id"] == connection, "it went on, it was not made anew"
    assert stage.caller_s_node.metrics()["icebroker_signaling_connections"] == 2
    # Both ways work again: what needs signaling is told, and a goodbye too.
    await bo.page.click("[data-testid=screen]")
    await anna.page.wait_for_selector("[data-testid=peer].screen")
    await bo.hang_up()
    await anna.page.wait_for_selector("html[data-peers='0']")


@pytest.mark.parametrize("answered", [False, True], ids=["before", "while"])
async def test_a_call_completes_when_the_callee_s_node_is_killed_before_it_answers(
    stage: Stage, answered: bool
):
    """Before the answer is written, and after it was written to a node that never read it."""
    bo = await stage.person(stage.front.url, "Bo", HOLD_THE_ANSWER)
    anna = await stage.person(stage.caller_s_node.url, "Anna")
    await bo.page.wait_for_function("window.held")
    if answered:
        stage.callee_s_node.sleep()
        await bo.page.evaluate("window.release()")
        await bo.page.wait_for_function(ANSWERED)
        stage.callee_s_node.kill()
    else:
        stage.callee_s_node.kill()
        await bo.page.wait_for_selector("html[data-signaling=open]")
        await bo.page.evaluate("window.release()")
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    assert len(await anna.calls()) == 1
