"""Chromium against the real services: what its tests start, and how they look into a page."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from config.signaling import SignalingSettings
from config.turn import TurnSettings
from signaling.ice import IceProvider, Server
from signaling.server import SignalingService
from tests.certificates import certificate
from tests.interop.process import free_port
from tests.patience import PATIENCE
from turn.server import TurnService

FLAGS = (
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream=fps=5",
    "--use-fake-ui-for-media-stream",
    # Applies to `turns:` too; the certificate is the test's own.
    "--ignore-certificate-errors",
    "--auto-select-desktop-capture-source=Entire screen",
)
OFF = (
    # Each is a renderer for every window, before there is a page: a third of what a call costs.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "SpareRendererForSitePerProcess",
    # Of Playwright's own list, which this one takes the place of: what its tests have found.
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "MediaRouter",
    "PaintHolding",
)
"""Features that no test looks at."""
LOOPBACK_FLAG = "--allow-loopback-in-peer-connection"
"""Without it there are no candidates on loopback, and nothing says so."""
SECRET = "a secret of the browser tests"


class Stage(NamedTuple):
    """A running relay and signaling service, on loopback."""

    url: str
    urls: dict[str, str]
    """The relay's ICE URLs: stun, udp, tcp, tls."""
    signaling: SignalingService
    turn: TurnService

    @property
    def websocket(self) -> str:
        """Where the client connects to."""
        return self.url.replace("http", "ws") + "/ws"


@asynccontextmanager
async def stage(folder: Path, **signaling_settings: Any) -> AsyncIterator[Stage]:
    """Start both services; ``folder`` takes the certificate."""
    pem, key = certificate(folder)
    port, tls_port = free_port(), free_port()
    turn = TurnService(
        TurnSettings.model_validate(
            {
                "listen": [f"127.0.0.1:{port}"],
                "listen_tls": [f"127.0.0.1:{tls_port}"],
                "tls_certificate": pem,
                "tls_key": key,
                "secret": SECRET,
                "allow_peers": ["127.0.0.0/8"],
                "max_allocations_per_user": 0,
                "max_allocations_per_address": 0,
            }
        )
    )
    urls = {
        "stun": f"stun:127.0.0.1:{port}",
        "udp": f"turn:127.0.0.1:{port}?transport=udp",
        "tcp": f"turn:127.0.0.1:{port}?transport=tcp",
        "tls": f"turns:127.0.0.1:{tls_port}?transport=tcp",
    }
    relay = (urls["udp"], urls["tcp"], urls["tls"])
    ice = IceProvider(lambda: [Server((urls["stun"],)), Server(relay)], SECRET, 3600)
    settings = {"listen": "127.0.0.1:0", **signaling_settings}
    signaling = SignalingService(SignalingSettings.model_validate(settings), ice)
    signaling._websockets.most_lag = math.inf  # this machine may be busy with other tests
    await turn.start()
    await signaling.start()
    try:
        host, signaling_port = signaling.addresses[0]
        yield Stage(f"http://{host}:{signaling_port}", urls, signaling, turn)
    finally:
        await signaling.stop()
        await turn.stop()


@asynccontextmanager
async def chromium(
    *flags: str, off: Sequence[str] = (), loopback: bool = True
) -> AsyncIterator[Browser]:
    """Debian's Chromium, with a camera and a microphone that are not real.

    :param off: features to do without; the last flag of the kind is the one that counts.
    """
    features = "--disable-features=" + ",".join((*OFF, *off))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[*FLAGS, features, *flags, *([LOOPBACK_FLAG] if loopback else [])],
        )
        try:
            yield browser
        finally:
            await browser.close()


class Caller:
    """A person at the call page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        """What the page's scripts threw."""
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    async def open(self, url: str, room: str, name: str, **settings: str) -> None:
        """Open the page and wait until camera and microphone are there."""
        await self.page.goto(f"{url}/?{urlencode({'room': room, 'name': name, **settings})}")
        await self.page.wait_for_selector("html[data-media=ok]")

    async def join(self) -> None:
        """Press the button."""
        await self.page.click("[data-testid=start]")
        await self.page.wait_for_selector("html[data-signaling=open]")

    async def hang_up(self) -> None:
        """Press the other one."""
        await self.page.click("[data-testid=hangup]")
        await self.page.wait_for_selector("[data-testid=start]")

    async def calls(self) -> list[dict[str, Any]]:
        """What the browser itself says of each connection; see CALLS."""
        found: list[dict[str, Any]] = await self.page.evaluate(CALLS)
        return found

    async def hears_and_sees(
        self, *names: str, within: float = 2 * PATIENCE
    ) -> list[dict[str, Any]]:
        """Wait until sound and pictures of exactly these people keep coming; the calls."""
        calls: list[dict[str, Any]] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    before = {call["id"]: call for call in calls}
                    calls = await self.calls()
                    if sorted(call["name"] for call in calls) == sorted(names) and all(
                        call["packets"] > before.get(call["id"], call)["packets"]
                        and call["frames"] > before[call["id"]]["frames"]
                        for call in calls
                    ):
                        return calls
                    await asyncio.sleep(0.25)
        raise AssertionError(f"not heard and seen: {names}; {calls}; {self.problems}")


CALLS = """async () => {
  const calls = [];
  for (const peer of globalThis.icebroker?.room?.peers.values() ?? []) {
    if (!peer.pc) continue;
    const stats = await peer.pc.getStats();
    const all = [...stats.values()];
    const sum = (kind, field) => all
      .filter((entry) => entry.type === "inbound-rtp" && entry.kind === kind)
      .reduce((total, entry) => total + (entry[field] ?? 0), 0);
    const transport = all.find((entry) => entry.type === "transport");
    const pair = stats.get(transport?.selectedCandidatePairId);
    const local = stats.get(pair?.localCandidateId);
    calls.push({
      id: peer.id, name: peer.name, state: peer.pc.connectionState,
      packets: sum("audio", "packetsReceived"), frames: sum("video", "framesDecoded"),
      local: local?.candidateType, via: local?.relayProtocol,
      remote: stats.get(pair?.remoteCandidateId)?.candidateType,
    });
  }
  return calls;
}"""
"""Of each peer in the room: name, state, audio packets and video frames received, and the path."""


async def blank_page(context: BrowserContext, url: str) -> Page:
    """A page of the server's origin with nothing on it but the client, as ``window.icebroker``."""
    page = await context.new_page()
    # Any file that the server itself serves: Chromium keeps a page from elsewhere off loopback.
    await page.goto(url + "/assets/client/sdp.js")
    await page.evaluate("import('/client.js').then((client) => { window.icebroker = client; })")
    return page
