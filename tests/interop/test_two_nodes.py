"""Two Chromium pages on two nodes behind one Redis, and the callee's node dies."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis
from playwright.async_api import Browser

from tests.interop.browser import Caller
from tests.interop.cluster import Balancer, Node, balancer, cluster
from tests.patience import until

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser is of all

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


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tmp_path: Path, browser: Browser) -> AsyncIterator[Stage]:
    """The callee's page is loaded through a balancer, as behind a proxy: its own node first."""
    with cluster(tmp_path) as nodes:
        async with balancer(reversed(nodes)) as front:
            made = Stage(nodes, front, browser)
            try:
                yield made
            finally:
                await made.close()


async def test_a_call_goes_on_when_the_callee_s_node_is_killed(stage: Stage):
    bo = await stage.person(stage.front.url, "Bo")
    anna = await stage.person(stage.caller_s_node.url, "Anna")
    assert stage.callee_s_node.metrics()["icebroker_signaling_connections"] == 1
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    connection = (await anna.calls())[0]["id"]
    stage.callee_s_node.kill()
    await until(lambda: stage.caller_s_node.metrics()["icebroker_signaling_connections"] == 2)
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    assert (await anna.calls())[0]["id"] == connection, "it went on, it was not made anew"
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
        await until(lambda: stage.caller_s_node.metrics()["icebroker_signaling_connections"] == 2)
        await bo.page.evaluate("window.release()")
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    assert len(await anna.calls()) == 1


WATCH = """
window.channels = [];
const create = RTCPeerConnection.prototype.createDataChannel;
RTCPeerConnection.prototype.createDataChannel = function (...options) {
  const channel = create.apply(this, options);
  window.channels.push(channel);
  return channel;
};
"""
"""Keep every data channel that the page makes."""
BEGIN = """() => {
  const { room } = icebroker;
  const [peer] = room.peers.values();
  window.before = { peer, pc: peer.pc, id: peer.id, self: room.self, channels: channels.length };
  window.told = [];
  window.heard = [];
  for (const event of ["join", "leave"]) room.on(event, () => told.push(event));
  room.on("data", (from, value) => heard.push(value));
  window.path = peer.pc.localDescription.sdp.match(/a=ice-ufrag:(\\S+)/)[1];
}"""
WENT_ON = """([them, us]) => {
  const [peer] = icebroker.room.peers.values();
  return peer === before.peer && peer.pc === before.pc && peer.state === "connected"
    && (peer.id !== before.id) === them && (icebroker.room.self !== before.self) === us
    && peer.pc.localDescription.sdp.match(/a=ice-ufrag:(\\S+)/)[1] !== path
    && peer.pc.signalingState === "stable";
}"""
"""The same connection, with a path that was sought anew; who has a new id: they, we."""
SAME_CHANNELS = (
    "channels.length === before.channels && channels.every((c) => c.readyState === 'open')"
)


async def in_a_call(stage: Stage) -> tuple[Caller, Caller]:
    """Two people at two nodes, who hear and see each other."""
    anna = await stage.person(stage.caller_s_node.url, "Anna", WATCH)
    bo = await stage.person(stage.callee_s_node.url, "Bo", WATCH)
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    for page in (anna.page, bo.page):
        await page.wait_for_function("channels.every((c) => c.readyState === 'open')")
        await page.evaluate(BEGIN)
    return anna, bo


async def went_on(anna: Caller, bo: Caller, *, lost: tuple[bool, bool]) -> None:
    """The call is the one that it was; ``lost``: who has lost a session."""
    await anna.page.wait_for_function(WENT_ON, arg=[lost[1], lost[0]])
    await bo.page.wait_for_function(WENT_ON, arg=[lost[0], lost[1]])
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    for here, there in ((anna.page, bo.page), (bo.page, anna.page)):
        assert await here.evaluate(SAME_CHANNELS)
        await here.evaluate("icebroker.room.send('still here')")
        await there.wait_for_function("heard.includes('still here')")
        assert await here.evaluate("told") == []
    # Signaling works too, by the new names.
    await bo.hang_up()
    await anna.page.wait_for_selector("html[data-peers='0']")


async def test_a_call_goes_on_when_redis_has_forgotten_both_sessions(stage: Stage):
    anna, bo = await in_a_call(stage)
    with redis.Redis.from_url(stage.caller_s_node.redis_url) as client:
        client.flushall()
    await went_on(anna, bo, lost=(True, True))


async def test_a_call_goes_on_when_one_session_could_not(stage: Stage):
    anna, bo = await in_a_call(stage)
    peer = await anna.page.evaluate("icebroker.room.self")
    with redis.Redis.from_url(stage.caller_s_node.redis_url) as client:
        (key,) = client.keys(f"*:p:{peer}")
        session = client.get(key).decode()
        client.hset(key.decode().replace(f"p:{peer}", f"s:{session}"), "broken", "1")
    await anna.page.evaluate("icebroker.room.reconnect()")
    await went_on(anna, bo, lost=(True, False))


async def test_a_call_whose_connection_is_gone_too_is_made_anew(stage: Stage):
    anna, bo = await in_a_call(stage)
    with redis.Redis.from_url(stage.caller_s_node.redis_url) as client:
        client.flushall()
    await bo.page.evaluate("before.pc.close()")
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    assert await bo.page.evaluate("before.pc.connectionState") == "closed"
    assert len(await anna.calls()) == 1
