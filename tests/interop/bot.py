"""A back end as a peer: aiortc over the Python client."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

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

ChooseServers = Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]


class Bot:
    """Sends a tone and a picture, and counts what it gets; one call at a time."""

    def __init__(
        self, client: Client, ice_servers: list[dict[str, Any]], *, media: bool = True
    ) -> None:
        self.frames = {"audio": 0, "video": 0}
        self.heard: list[str] = []
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()
        servers = [RTCIceServer(**server) for server in ice_servers]
        self.pc = RTCPeerConnection(
            RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        if media:
            self.pc.addTrack(AudioStreamTrack())
            self.pc.addTrack(VideoStreamTrack())
        self.channel = self.pc.createDataChannel("icebroker", negotiated=True, id=0)
        self.channel.on("message", self.heard.append)
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
async def bot(
    url: str,
    room: str,
    *,
    media: bool = True,
    choose: ChooseServers | None = None,
    trust: ssl.SSLContext | bool = True,
) -> AsyncIterator[Bot]:
    """A bot in a room; it offers to whoever is there or comes, where its role is to.

    :param choose: which of the ICE servers to use; aiortc takes one STUN and one TURN server.
    """
    async with Client(url, name="Bot", ssl=trust) as client:
        joined = await client.join(room)
        servers = joined["iceServers"]
        made = Bot(client, await choose(servers) if choose else servers, media=media)
        serving = asyncio.create_task(made.serve())
        for peer in joined["peers"]:
            await made.call(peer["id"])
        try:
            yield made
        finally:
            serving.cancel()
            await made.close()
