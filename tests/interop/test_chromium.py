"""Two Chromium pages in one room: the product as people meet it."""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.interop.browser import Caller, Stage, blank_page
from tests.interop.proxy import proxy
from tests.patience import until
from turn.allocation.allocator import CloseReason

pytestmark = pytest.mark.asyncio(loop_scope="session")
Enter = Callable[..., Awaitable[Caller]]
ROOMS = itertools.count(1)


@pytest.fixture
def room() -> str:
    """A room of its own for each test."""
    return f"room {next(ROOMS)}"


@pytest_asyncio.fixture(loop_scope="session")
async def enter(server: Stage, browser: Browser, room: str) -> AsyncIterator[Enter]:
    """Somebody opens the call page and joins; in the end all leave, and no page had a fault."""
    callers: list[Caller] = []

    async def make(name: str, url: str = "", **settings: str) -> Caller:
        context = await browser.new_context(permissions=["camera", "microphone"])
        caller = Caller(await context.new_page())
        callers.append(caller)
        await caller.open(url or server.url, room, name, **settings)
        await caller.join()
        return caller

    yield make
    for caller in callers:
        await caller.page.context.close()
    assert [caller.problems for caller in callers] == [[] for _ in callers]


def relayed(server: Stage) -> int:
    """Packets that went through the relay, by whichever plane."""
    planes = (server.turn._routes.in_user_space(), server.turn._plane.carried())
    return sum(carried.sent_packets + carried.received_packets for carried in planes)


def returned(server: Stage) -> int:
    """Allocations that pages gave back; one that was given up before it was had lives on."""
    closed = server.turn.stats.allocations_closed
    return closed[CloseReason.RELEASED] + closed[CloseReason.DISCONNECTED]


async def shown(caller: Caller, testid: str, pattern: str) -> None:
    """Wait until a part of the page says this."""
    await caller.page.wait_for_selector(f"[data-testid={testid}]:text-matches('{pattern}')")


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_a_call_through_the_relay(server: Stage, enter: Enter, transport: str):
    before = relayed(server)
    anna = await enter("Anna", relay="1", transport=transport)
    bo = await enter("Bo", relay="1", transport=transport)
    for caller, other in ((anna, "Bo"), (bo, "Anna")):
        (call,) = await caller.hears_and_sees(other)
        assert (call["local"], call["remote"], call["via"]) == ("relay", "relay", transport)
        await shown(caller, "path", f"^Relayed over {transport.upper()} · ")
    await anna.hang_up()
    await bo.hang_up()
    await until(lambda: relayed(server) - before > 100)


async def test_a_direct_call_and_what_the_page_offers(enter: Enter):
    anna = await enter("Anna")
    bo = await enter("Bo")
    for caller, other in ((anna, "Bo"), (bo, "Anna")):
        (call,) = await caller.hears_and_sees(other)
        assert (call["local"], call["remote"]) == ("host", "host")
        await shown(caller, "path", "^Direct · ")
        await shown(caller, "peer-name", f"^{other}$")
    # Chat goes to the other one, and is counted there while nobody looks.
    await anna.page.click("[data-testid=chat]")
    await anna.page.fill("[data-testid=chat-input]", "<b>Hello</b>")
    await anna.page.press("[data-testid=chat-input]", "Enter")
    await bo.page.wait_for_selector("[data-testid=unread]:not([hidden])")
    await bo.page.click("[data-testid=chat]")
    await bo.page.wait_for_selector("[data-testid=messages]:has-text('<b>Hello</b>')")
    people = await bo.page.eval_on_selector_all(
        "[data-testid=person] .who", "(people) => people.map((each) => each.innerText)"
    )
    assert people == ["Bo (you)", "Anna"]
    # Mute: the other side is told, and hears silence, not nothing.
    await anna.page.click("[data-testid=mic]")
    await bo.page.wait_for_selector("[data-testid=peer-name] svg")
    # The screen takes the camera's place, without a new negotiation.
    await anna.page.click("[data-testid=screen]")
    await bo.page.wait_for_selector("[data-testid=peer].screen")
    await bo.hears_and_sees("Anna")
    await anna.page.click("[data-testid=screen]")
    await bo.page.wait_for_selector("[data-testid=peer]:not(.screen)")
    await bo.hears_and_sees("Anna")


async def test_hang_up_and_call_again(enter: Enter):
    anna = await enter("Anna")
    bo = await enter("Bo")
    for _ in range(3):
        await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
        await bo.hang_up()
        await anna.page.wait_for_selector("html[data-peers='0']")
        assert await anna.page.is_visible("[data-testid=alone]")
        await bo.join()
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))


async def test_three_in_a_room(enter: Enter):
    everyone = [await enter("Anna"), await enter("Bo", relay="1"), await enter("Cleo")]
    names = {"Anna", "Bo", "Cleo"}
    for caller, name in zip(everyone, sorted(names), strict=True):
        calls = await caller.hears_and_sees(*(names - {name}))
        assert len(calls) == 2


async def test_a_reload_in_mid_call(server: Stage, enter: Enter, room: str):
    anna = await enter("Anna")
    bo = await enter("Bo")
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
    for caller, name, other, another in ((anna, "Anna", bo, "Bo"), (bo, "Bo", anna, "Anna")):
        await caller.open(server.url, room, name)
        await caller.join()
        await asyncio.gather(caller.hears_and_sees(another), other.hears_and_sees(name))
        assert await other.page.get_attribute("html", "data-peers") == "1"


@pytest.mark.parametrize("piece", range(1, 13))
async def test_a_socket_killed_in_mid_negotiation(
    server: Stage, enter: Enter, room: str, piece: int
):
    # A piece is lost with its socket: somewhere between hello and the last candidate.
    async with proxy(server.url) as network:
        anna = await enter("Anna")
        network.cut_after(piece)
        bo = await enter("Bo", url=network.url)
        await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))
        assert network.cuts == 1
        assert len(await anna.calls()) == 1
        made = network.websockets
        network.cut()
        await until(lambda: network.websockets > made)
        await bo.page.wait_for_selector("html[data-signaling=open]")
        await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))


async def test_a_server_that_is_away_cuts_no_call(enter: Enter, server: Stage):
    async with proxy(server.url) as network:
        anna = await enter("Anna", url=network.url)
        bo = await enter("Bo", url=network.url)
        await anna.hears_and_sees("Bo")
    await anna.page.wait_for_selector("html[data-signaling=waiting]")
    assert await anna.page.is_visible("[data-code=away]")
    await asyncio.gather(anna.hears_and_sees("Bo"), bo.hears_and_sees("Anna"))


async def test_a_phone_s_width(server: Stage, browser: Browser, enter: Enter, room: str):
    await enter("Anna")
    context = await browser.new_context(
        viewport={"width": 360, "height": 640}, permissions=["camera", "microphone"]
    )
    try:
        bo = Caller(await context.new_page())
        await bo.open(server.url, room, "Bo")
        await bo.join()
        await bo.hears_and_sees("Anna")
        assert await bo.page.evaluate("document.documentElement.scrollWidth") == 360
        for control in ("mic", "camera", "screen", "chat", "hangup", "copy-link"):
            box = await bo.page.locator(f"[data-testid={control}]").bounding_box()
            assert box
            assert min(box["width"], box["height"]) >= 40, control
            assert box["x"] >= 0, control
            assert box["x"] + box["width"] <= 360, control
            assert box["y"] + box["height"] <= 640, control
        assert bo.problems == []
    finally:
        await context.close()


async def test_the_ice_tester_finds_what_works_and_what_does_not(server: Stage, browser: Browser):
    page = await browser.new_page()
    try:
        await page.goto(f"{server.url}/trickle")
        await page.wait_for_selector("html[data-verdict=good]", timeout=60_000)
        assert "over UDP, TCP and TLS" in await page.inner_text("[data-testid=verdict]")
        for transport in ("udp", "tcp", "tls"):
            result = page.locator(f'[data-url="{server.urls[transport]}"]')
            assert "came back" in await result.inner_text()
            assert await result.get_attribute("data-echo-received") == "20"
        good = {"urls": server.urls["stun"]}
        wrong = {"urls": server.urls["udp"], "username": "bob", "credential": "wrong"}
        silent = {"urls": "turn:127.0.0.1:9?transport=tcp", "username": "a", "credential": "b"}
        await page.click("#custom > summary")
        await page.fill("[data-testid=servers]", json.dumps([good, wrong, silent]))
        await page.click("[data-testid=run]")
        await page.wait_for_selector("html[data-verdict=bad]", timeout=60_000)
        verdict = await page.inner_text("[data-testid=verdict]")
        assert verdict == "Calls connect from here only where a direct path works: no relay works."
        words = await page.eval_on_selector_all(
            "[data-testid=result] .words", "(all) => all.map((each) => each.innerText)"
        )
        assert words[0].startswith("Answers")
        assert "refuses these credentials" in words[1]
        assert "nothing listens" in words[2]
        for text, problem in (("nonsense", "not JSON"), ("[]", "empty"), ('[{"urls":"x:y"}]', "")):
            await page.fill("[data-testid=servers]", text)
            await page.click("[data-testid=run]")
            assert problem in await page.inner_text("[data-testid=servers-problem]")
            assert await page.is_visible("[data-testid=servers-problem]")
    finally:
        await page.close()


async def test_the_client_s_types_name_what_it_exports(server: Stage, browser: Browser):
    context = await browser.new_context()
    try:
        page = await blank_page(context, server.url)
        exported = await page.evaluate("Object.keys(window.icebroker)")
        types = (Path(__file__).parents[2] / "signaling/web/client.d.ts").read_text()
        declared = re.findall(r"^export (?:class|function) (\w+)", types, re.MULTILINE)
        assert sorted(exported) == sorted(declared)
        for name in ("Room", "Peer", "Signaler"):
            body = types.split(f"export class {name} ")[1].split("\n}")[0]
            members = set(re.findall(r"^  (?:readonly )?(\w+)[?(:<]", body, re.MULTILINE))
            for member in members - {"constructor"}:
                there = await page.evaluate(
                    "([name, member]) => member in icebroker[name].prototype"
                    " || [`  ${member}`, `this.${member}`].some((text) =>"
                    " String(icebroker[name]).includes(text))",
                    [name, member],
                )
                assert there, f"{name}.{member}"
    finally:
        await context.close()
