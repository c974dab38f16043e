"""A back end as a peer: aiortc over the Python client, in a call with a Chromium page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, VideoStreamTrack
from aiortc.sdp import candidate_from_sdp

from signaling.client import Client
from tests.conftest import need
from tests.interop.browser import Caller, chromium, stage
from tests.turn.live import until


class Bot:
    """Sends a tone and a picture, and counts what it gets; one call at a time."""

    def __init__(self, client: Client, ice_servers: list[dict[str, Any]]) -> None:
        self.frames = {"audio": 0, "video": 0}
        self.heard: list[str] = []
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        servers = [RTCIceServer(**server) for server in ice_servers]
        self.pc = RTCPeerConnection(
            RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self.pc.addTrack(AudioStreamTrack())
        self.pc.addTrack(VideoStreamTrack())
        channel = self.pc.createDataChannel("icebroker", negotiated=True, id=0)
        channel.on("message", self.heard.append)
        self.pc.on("track", self._count)

    def _count(self, track: Any) -> None:
        async def count() -> None:
            with suppress(MediaStreamError):
                while True:
                    await track.recv()
                    self.frames[track.kind] += 1

        self._start(count())

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call(self, peer: str) -> None:
        """Offer; aiortc gathers before it describes, so that no candidate comes later."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        await self._describe(peer)

    async def serve(self) -> None:
        """Answer whoever offers, until the session ends."""
        async for event in self._client.events():
            if event["type"] == "peer" and event["event"] == "join" and not event["polite"]:
                await self.call(event["id"])
            elif event["type"] == "signal":
                await self._signal(event)

    async def _signal(self, event: dict[str, Any]) -> None:
        if description := event.get("description"):
            known = {key: description[key] for key in ("type", "sdp")}
            await self.pc.setRemoteDescription(RTCSessionDescription(**known))
            if description["type"] == "offer":
                await self.pc.setLocalDescription(await self.pc.createAnswer())
                await self._describe(event["from"])
        for entry in event.get("candidates", [event.get("candidate")]):
            if not entry or not entry["candidate"]:
                continue
            candidate = candidate_from_sdp(entry["candidate"].removeprefix("candidate:"))
            candidate.sdpMid = entry["sdpMid"]
            candidate.sdpMLineIndex = entry["sdpMLineIndex"]
            await self.pc.addIceCandidate(candidate)

    async def _describe(self, peer: str) -> None:
        made = self.pc.localDescription
        await self._client.signal(peer, description={"type": made.type, "sdp": made.sdp})

    async def close(self) -> None:
        """End the call."""
        await self.pc.close()
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def bot(url: str, room: str) -> AsyncIterator[Bot]:
    """A bot in a room; it offers to whoever is there or comes, where its role is to."""
    async with Client(url, name="Bot") as client:
        joined = await client.join(room)
        made = Bot(client, joined["iceServers"])
        serving = asyncio.create_task(made.serve())
        for peer in joined["peers"]:
            await made.call(peer["id"])
        try:
            yield made
        finally:
            serving.cancel()
            await made.close()


@pytest.mark.parametrize("first", ["page", "bot"])
@pytest.mark.parametrize("relay", ["", "1"])
async def test_a_back_end_calls_a_page(tmp_path: Path, first: str, relay: str):
    need("chromium")
    async with stage(tmp_path) as server, chromium() as browser:
        context = await browser.new_context(permissions=["camera", "microphone"])
        page = Caller(await context.new_page())
        await page.open(server.url, "bots", "Anna", relay=relay)
        if first == "page":
            await page.join()
        async with bot(server.websocket, "bots") as made:
            if first == "bot":
                await page.join()
            (call,) = await page.hears_and_sees("Bot")
            assert (call["local"] == "relay") == bool(relay)
            await page.page.click("[data-testid=chat]")
            await page.page.fill("[data-testid=chat-input]", "Hello bot")
            await page.page.press("[data-testid=chat-input]", "Enter")
            await until(lambda: min(made.frames.values()) >= 20, 10)
            await until(lambda: any("Hello bot" in text for text in made.heard), 10)
        await page.page.wait_for_selector("html[data-peers='0']")
        assert page.problems == []
