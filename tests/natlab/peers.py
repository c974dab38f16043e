"""Clients in the laboratory: aiortc and Chromium, each on a host of its own."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import aioice
from aioice.ice import CandidatePair
from aioice.turn import create_turn_endpoint
from aiortc.rtcconfiguration import RTCIceServer
from aiortc.rtcicetransport import connection_kwargs

from tests.interop.bot import Bot, bot
from tests.interop.browser import blank_page, chromium
from tests.namespaces import inside, looping
from tests.natlab.internet import RELAY, Internet, Site
from tests.natlab.networks import LAN
from tests.natlab.tunnel import HostLoop
from tests.patience import PATIENCE, until

CONNECTED_WITHIN = 25.0
MESSAGE = "x" * 1000
RELAY_NAME = "ipv6.relay"
"""Of the relay's IPv6 address: aiortc cannot read one in a URL."""


class End(NamedTuple):
    """What one end of a call says of its path."""

    local: str
    """The type of its own candidate."""
    remote: str
    via: str
    """The transport to its own relay, or "direct" where it uses none."""

    @property
    def relayed(self) -> bool:
        """Whether a relay carries what this end sends: its own, or the other's."""
        return "relay" in (self.local, self.remote)


class Peer(ABC):
    """Somebody who is in a call with one other."""

    @abstractmethod
    async def arrive(self) -> None:
        """Make ready to join."""

    @abstractmethod
    async def join(self, room: str) -> None:
        """Enter a room, and call whoever is there."""

    @abstractmethod
    async def connected(self) -> float:
        """Wait until data can flow; the seconds that it took."""

    @abstractmethod
    async def end(self) -> End:
        """Which path it uses now."""

    @abstractmethod
    async def send(self, count: int) -> None:
        """Send so many messages to the other one."""

    @abstractmethod
    async def received(self, count: int) -> None:
        """Wait until so many have come."""

    @abstractmethod
    async def close(self) -> None:
        """Leave."""


class PatientConnection(aioice.Connection):
    """ICE that gives direct paths a start over relayed ones, and one relay over two.

    aioice takes whichever pair answers first. Two routers that each let in only what was asked for
    need one try to open, and so does a relay that its client has not told yet whom to let in.
    """

    HEAD_START = (0.0, 0.6, 2.0)
    """Seconds from the first check to those of pairs with so many relays: longer than the first
    retransmission takes (RFC 8489 §6.2.1), and than two of them."""
    _first: float | None = None

    async def check_start(self, pair: CandidatePair) -> None:
        """Check a pair, once it is its turn."""
        now = asyncio.get_running_loop().time()
        self._first = now if self._first is None else self._first
        relays = (pair.local_candidate.type, pair.remote_candidate.type).count("relay")
        await asyncio.sleep(self._first + self.HEAD_START[relays] - now)
        await super().check_start(pair)


class Aiortc(Peer):
    """aiortc with the Python client."""

    def __init__(self, internet: Internet, site: Site) -> None:
        self._site = site
        self._trust = internet.trust()
        self._stack = AsyncExitStack()
        self._since = 0.0
        self._via = ""
        self._bot: Bot

    async def arrive(self) -> None:
        """Nothing has to be started."""

    async def join(self, room: str) -> None:
        self._since = time.monotonic()
        url = self._site.url.replace("https", "wss") + "/ws"
        entered = bot(url, room, media=False, choose=self._choose, trust=self._trust)
        self._bot = await self._stack.enter_async_context(entered)

    async def connected(self) -> float:
        async with asyncio.timeout(CONNECTED_WITHIN):
            while self._bot.channel.readyState != "open":  # noqa: ASYNC110 - aiortc tells no waiter
                await asyncio.sleep(0.01)
        return time.monotonic() - self._since

    async def end(self) -> End:
        pair = self._bot.pc.sctp.transport.transport._connection._nominated[1]
        local, remote = pair.local_candidate.type, pair.remote_candidate.type
        return End(local, remote, self._via if local == "relay" else "direct")

    async def send(self, count: int) -> None:
        for _ in range(count):
            self._bot.channel.send(MESSAGE)

    async def received(self, count: int) -> None:
        await until(lambda: len(self._bot.heard) >= count)

    async def close(self) -> None:
        await self._stack.aclose()

    async def _choose(self, servers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The first relay URL that works, UDP before TCP before TLS: aiortc takes only one."""
        for server in servers:
            for url in server["urls"]:
                if not url.startswith("turn") or self._site.relay not in url:
                    continue
                chosen = {**server, "urls": url.replace(f"[{RELAY[1]}]", RELAY_NAME)}
                if await self._works(chosen):
                    self._via = transport_of(url)
                    stun = {"urls": f"stun:{RELAY[0]}:3478"}
                    has_stun = self._via == "udp" and self._site.kind.ipv4
                    return [stun, chosen] if has_stun else [chosen]
        return []

    async def _works(self, server: dict[str, Any]) -> bool:
        options = connection_kwargs([RTCIceServer(**server)])
        with suppress(OSError, TimeoutError, aioice.stun.TransactionError):
            async with asyncio.timeout(3):
                transport, _ = await create_turn_endpoint(
                    asyncio.DatagramProtocol,
                    server_addr=options["turn_server"],
                    username=options["turn_username"],
                    password=options["turn_password"],
                    ssl=options["turn_ssl"],
                    transport=options["turn_transport"],
                )
            transport.close()
            return True
        return False


def transport_of(url: str) -> str:
    """How a relay's URL is reached: udp, tcp or tls."""
    if url.startswith("turns:"):
        return "tls"
    return "tcp" if url.endswith("transport=tcp") else "udp"


class Page(Peer):
    """Chromium with the browser client."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stack = AsyncExitStack()
        self._page: Any

    async def arrive(self) -> None:
        # Without a camera Chromium hides the host's addresses behind multicast names.
        off = [] if self._site.kind is LAN else ["WebRtcHideLocalIpsWithMdns"]
        flags = []
        if self._site.proxy:
            flags.append("--proxy-server={}:{}".format(*self._site.proxy))
        browser = await self._stack.enter_async_context(chromium(*flags, off=off, loopback=False))
        context = await browser.new_context()
        self._page = await blank_page(context, self._site.url)

    async def join(self, room: str) -> None:
        await self._page.evaluate(JOIN, room)

    async def connected(self) -> float:
        milliseconds = await self._page.evaluate("connected")
        return float(milliseconds) / 1000

    async def end(self) -> End:
        path = await self._page.evaluate("icebroker.pathOf(peer.pc)")
        return End(path["local"], path["remote"], path["via"] or "direct")

    async def send(self, count: int) -> None:
        await self._page.evaluate(
            "([count, text]) => { for (let i = 0; i < count; i++) peer.send(text); }",
            [count, MESSAGE],
        )

    async def received(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self._page.evaluate("heard") < count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._stack.aclose()


JOIN = """async (name) => {
  window.heard = 0;
  const begin = performance.now();
  window.room = await icebroker.join(name, { receive: [] });
  window.connected = new Promise((resolve) => {
    const look = () => {
      [window.peer] = room.peers.values();
      if (window.peer?.state === "connected" && peer.path) resolve(performance.now() - begin);
      else setTimeout(look, 20);
    };
    look();
  });
  room.on("data", () => { window.heard += 1; });
}"""
"""Enter a room; ``connected`` is a promise of the milliseconds until there is a path."""


class Running:
    """A peer whose event loop is on its own host."""

    def __init__(self, peer: Peer, start: Any) -> None:
        self._peer = peer
        self._start = start

    def __getattr__(self, name: str) -> Any:
        """Start a method of the peer; gives a future."""
        method = getattr(self._peer, name)
        return lambda *arguments: self._start(method(*arguments))


@contextmanager
def on(site: Site, peer: Peer) -> Iterator[Running]:
    """Let a peer live on its host; it has left in the end."""
    with ExitStack() as stack:
        with inside(site.namespace):
            start = stack.enter_context(looping(HostLoop({RELAY_NAME: RELAY[1]}, site.proxy)))
        running = Running(peer, start)
        try:
            yield running
        finally:
            running.close().result(20)
