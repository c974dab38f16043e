"""Calls that the kernel carries: real clients, and the metrics say who did it."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.conftest import need_root
from tests.interop.bot import bot
from tests.interop.browser import Caller, Stage, stage
from tests.interop.process import samples
from tests.patience import until
from turn.metrics import exposition

pytestmark = pytest.mark.asyncio(loop_scope="session")  # the browser is of all

NAME = 'icebroker_turn_relay_packets_total{direction="%s",plane="kernel"}'


def carried(server: Stage) -> Mapping[str, float]:
    """Packets that the kernel carried, by direction, as Prometheus sees them."""
    found = samples(exposition([server.turn.collector]).decode())
    return {direction: found[NAME % direction] for direction in ("to_peer", "to_client")}


@pytest.fixture(autouse=True)
def need_kernel() -> None:
    need_root("BPF")


async def test_two_pages_are_carried_by_the_kernel(tmp_path: Path, browser: Browser):
    async with stage(tmp_path) as server:
        assert server.turn.plane == "kernel"
        callers = []
        for name in ("Anna", "Bo"):
            context = await browser.new_context(permissions=["camera", "microphone"])
            caller = Caller(await context.new_page())
            callers.append(caller)
            await caller.open(server.url, "kernel", name, relay="1", transport="udp")
            await caller.join()
        for caller, other in zip(callers, ("Bo", "Anna"), strict=True):
            (call,) = await caller.hears_and_sees(other)
            assert (call["local"], call["remote"], call["via"]) == ("relay", "relay", "udp")
        await until(lambda: min(carried(server).values()) > 100)
        assert [caller.problems for caller in callers] == [[], []]


async def test_a_page_and_a_back_end_are_carried_by_the_kernel(tmp_path: Path, browser: Browser):
    async with stage(tmp_path) as server:
        context = await browser.new_context(permissions=["camera", "microphone"])
        page = Caller(await context.new_page())
        await page.open(server.url, "bots", "Anna", relay="1", transport="udp")
        await page.join()
        async with bot(server.websocket, "bots") as made:
            await page.hears_and_sees("Bot")
            await until(lambda: min(made.frames.values()) >= 10)
            await until(lambda: min(carried(server).values()) > 100)
        assert page.problems == []
