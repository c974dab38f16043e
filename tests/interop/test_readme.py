"""The lines that README.md gives people to paste, pasted."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
from playwright.async_api import Browser

from config.load import load
from signaling.client import Client
from tests.certificates import certificate
from tests.interop.browser import stage
from tests.interop.process import free_port
from tests.interop.site import site
from tests.patience import PATIENCE, until

ROOT = Path(__file__).parents[2]
HOST = "icebroker.example.org"


def pasted(kind: str, number: int = 0) -> str:
    """The lines of a kind, the first ones or those behind them."""
    blocks = re.findall(rf"```{kind}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return str(blocks[number])


def test_the_configuration_for_production_is_good(tmp_path: Path):
    pem, key = certificate(tmp_path)
    text = pasted("toml").replace("…", "thirty-two bytes out of openssl rand")
    text = text.replace("/etc/icebroker/fullchain.pem", str(pem))
    text = text.replace("/etc/icebroker/privkey.pem", str(key))
    file = tmp_path / "icebroker.toml"
    file.write_text(text, "utf-8")
    settings = load(file, environment={}, services=["turn", "signaling"])
    assert settings.turn.hostname == HOST


async def test_the_lines_for_a_back_end_print_who_comes(tmp_path: Path):
    async with stage(tmp_path) as server, Client(server.websocket, name="Ada") as ada:
        lines = tmp_path / "back_end.py"
        lines.write_text(pasted("python").replace(f"wss://{HOST}/ws", server.websocket), "utf-8")
        await ada.join("demo")
        back_end = await asyncio.create_subprocess_exec(
            sys.executable, "-u", lines, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert back_end.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                assert (await anext(ada.events()))["name"] == "Recorder"
                async with Client(server.websocket, name="Bob") as bob:
                    await bob.join("demo")
                    assert b"'name': 'Bob'" in await back_end.stdout.readline()
        finally:
            back_end.kill()
            await back_end.wait()


@pytest.mark.asyncio(loop_scope="session")  # the browser is of all
async def test_the_lines_for_a_page_of_ones_own_make_a_call(tmp_path: Path, browser: Browser):
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    async with stage(tmp_path, allowed_origins=[own]) as server:
        html = pasted("html").replace(f"https://{HOST}", server.url)
        ice = pasted("js").replace(f"https://{HOST}", server.url)
        async with site(port, html):
            pages = [await (await browser.new_context()).new_page() for _ in range(2)]
            for page in pages:
                await page.goto(own)
            for page in pages:
                await page.wait_for_function("document.getElementById('them').currentTime > 0.5")
            relay = await pages[0].evaluate(
                f"(async () => {{ {ice}; return JSON.stringify(pc.getConfiguration()); }})()"
            )
            urls = [url for entry in json.loads(relay)["iceServers"] for url in entry["urls"]]
            assert server.urls["udp"] in urls
            for page in pages:
                await page.close()
        await until(lambda: server.signaling.stats.disconnects["left"] == 2)
