"""The composition root of signaling: the one place that wires it; start, drain, stop."""

import asyncio
import resource
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from aiohttp import web
from pydantic import SecretStr

from config.schema import RedisSettings
from config.section import StartError
from config.signaling import SignalingSettings
from config.tls import expiry, server_context
from config.webhooks.delivery import Delivery
from config.webhooks.post import Poster
from signaling.admin import SIGNALING_EVENTS, NodeEntry, Peers, Rooms, SignalingFigures
from signaling.admission import Admission, JoinWebhook
from signaling.auth import Tokens
from signaling.broker.base import Node, Revocation, Unavailable
from signaling.broker.choose import choose_broker
from signaling.broker.memory import MemoryBroker
from signaling.broker.redis import RedisBroker
from signaling.door import Door, Limits
from signaling.http import Http
from signaling.hub import Hub, HubSettings
from signaling.ice import IceProvider
from signaling.metrics import Gauges, SignalingCollector
from signaling.origin import OriginPolicy
from signaling.outbox import SocketSettings
from signaling.peerjs import PeerJs, PeerJsSettings
from signaling.stats import PATHS, Stats, Tell, to_nobody
from signaling.websocket import WebSockets

log = structlog.get_logger("signaling")

TICK = 1.0
"""Seconds between looks at what is over and what is due."""
DRAIN_LOOK = 0.1
NODES_PATIENCE = 1.0
"""Seconds that figures wait for Redis; without it they name the nodes of the last time."""


class SignalingService:
    """The signaling of this process."""

    name = "signaling"
    figures_type = SignalingFigures
    events = SIGNALING_EVENTS

    def __init__(
        self,
        settings: SignalingSettings,
        ice: IceProvider,
        redis: RedisSettings | None = None,
        tell: Tell = to_nobody,
    ) -> None:
        """Wire it.

        :param redis: where the nodes meet; None: this node stands alone.
        :param tell: hears of what happens, for operators who watch.
        """
        self._settings = settings
        self.ice = ice
        self.stats = stats = Stats()
        self._broker = _broker(settings, redis or RedisSettings())
        self._tokens = tokens = Tokens(_secrets(settings.token_secret), ice.tenant)
        self._poster = Poster(_secrets(settings.webhook_secret), settings.webhook_timeout)
        self._lifecycle: Delivery | None = None
        if settings.webhook_url:
            self._lifecycle = Delivery(
                self._broker, self._poster, settings.webhook_url, stats.webhooks,
                together="room", service="signaling",
            )  # fmt: skip
        self._join_webhook: JoinWebhook | None = None
        if settings.join_url:
            self._join_webhook = JoinWebhook(
                self._poster, settings.join_url, settings.join_cache, stats
            )
        self._admission = admission = Admission(tokens, self._join_webhook)
        self._tls: ssl.SSLContext | None = None
        self._certificate_expiry: float | None = None
        self._hub = Hub(_hub_settings(settings), self._broker, ice, admission, stats, tell)
        self._websockets = WebSockets(_socket_settings(settings), self._hub, stats)
        self._origins = OriginPolicy(
            settings.allowed_origins, settings.trusted_proxies, tokens=admission.required
        )
        self._peerjs = PeerJs(_peerjs_settings(settings), self._hub, stats)
        parts = self._websockets, ice, admission, self._origins, self._peerjs
        http = Http(*parts, pages=settings.pages, tell=tell)
        # An ended socket's handler still has to suspend its session: give it a moment.
        self._runner = web.AppRunner(http.app, handle_signals=False, shutdown_timeout=5.0)
        self._ticker: asyncio.Task[None] | None = None
        self._nodes: list[Node] = []
        self.collections = (Rooms(self._hub), Peers(self._hub))
        self.collector = SignalingCollector(
            stats,
            Gauges(
                lambda: self._websockets.connections,
                self._broker.counts,
                self._broker.is_up,
                lambda: ice.issued,
                lambda: self._certificate_expiry,
            ),
        )

    @property
    def draining(self) -> bool:
        """Whether new sockets are turned away."""
        return self._hub.draining

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens, once started."""
        return [(host, port) for host, port, *_ in self._runner.addresses]

    async def start(self) -> None:
        """Begin to serve.

        :raises StartError: the certificate is not usable.
        :raises OSError: the address cannot be listened on.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each socket is a descriptor
        tls = self._tls = self._tls_context()
        await self._broker.start(self._hub)
        await self._runner.setup()
        try:
            await Door(
                self._runner, self._settings.listen, tls, self._origins.is_trusted, self._limits
            ).start()
        except OSError as error:
            await self._runner.cleanup()
            await self._broker.stop()
            raise OSError(
                error.errno,
                f"signaling cannot listen on {self._settings.listen}: {error.strerror}",
            ) from None
        if self._lifecycle is not None:
            self._lifecycle.start()
        self._ticker = asyncio.create_task(self._tick())

    def reload(self, settings: SignalingSettings) -> None:
        """Go on with other settings; sessions stay, and their sockets keep their limits.

        What only a restart can change stays as it is (``SignalingSettings.needs_restart``).

        :raises StartError: the certificate is not usable; nothing has changed.
        """
        if self._tls is not None:
            self._certificate_expiry = _load_certificate(self._tls, settings)
        self._settings = settings
        self._tokens.set_secrets(_secrets(settings.token_secret))
        self._poster.replace(_secrets(settings.webhook_secret), settings.webhook_timeout)
        if self._join_webhook is not None:
            self._join_webhook.remember = settings.join_cache
        self._origins.replace(
            settings.allowed_origins, settings.trusted_proxies, tokens=self._admission.required
        )
        self._hub.settings = _hub_settings(settings)
        self._websockets.settings = _socket_settings(settings)
        self._peerjs.settings = _peerjs_settings(settings)

    def ready(self) -> list[str]:
        """What keeps signaling from being sent clients; empty: nothing."""
        problems = []
        if self._ticker is None or self._ticker.done():
            problems.append("not running")
        if self.draining:
            problems.append("draining")
        if not self._broker.is_up():
            problems.append("Redis cannot be reached (redis.url)")
        return problems

    async def refresh(self) -> None:
        """Ask who the other nodes are; all else is true whenever it is asked."""
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(NODES_PATIENCE):
                self._nodes = await self._broker.nodes()

    async def drain(self, seconds: float) -> None:
        """Turn new sockets away and ask the open ones to move, until all have or time is up."""
        log.info("draining", connections=self._websockets.connections, seconds=seconds)
        self._hub.drain(seconds)
        deadline = time.monotonic() + seconds
        while self._websockets.connections and time.monotonic() < deadline:  # noqa: ASYNC110 - counted, not signalled
            await asyncio.sleep(DRAIN_LOOK)

    def resume(self) -> None:
        """Let sockets in again."""
        self._hub.draining = False

    def left(self) -> dict[str, int]:
        """What a drain waits for."""
        return {"connections": self._websockets.connections}

    def figures(self) -> SignalingFigures:
        """How it goes, in numbers."""
        rooms, peers = self._broker.counts()
        stats = self.stats
        return SignalingFigures(
            connections=self._websockets.connections,
            rooms=rooms,
            peers=peers,
            broker="memory" if isinstance(self._broker, MemoryBroker) else "redis",
            broker_up=self._broker.is_up(),
            nodes=[NodeEntry(*node) for node in self._nodes],
            messages=dict(stats.messages),
            refused=dict(stats.dropped),
            disconnects=dict(stats.disconnects),
            paths=dict.fromkeys(PATHS, 0) | stats.ice_results,
            credentials_issued=self.ice.issued,
            certificate_not_after=self._certificate_expiry,
            listening=[f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.addresses],
        )

    async def revoke(self, user: str, until: float) -> int:
        """End the sessions of a user at every node, and let it begin none until then.

        Relays end its allocations and credentials: that of this process through
        ``on_revoked``, others through Redis.

        :param user: the claim ``sub`` of its tokens; without tokens, a peer's id.
        :param until: Unix time.
        :raises ConnectionError: the broker is away; tokens are refused already.
        """
        try:
            return await self._hub.revoke(user, until)
        except Unavailable as error:
            raise ConnectionError(f"the broker is away: {error}") from None

    async def restore(self, user: str) -> None:
        """Let a user in again, at every node. :raises ConnectionError: the broker is away."""
        await self.revoke(user, 0.0)

    async def spread_revocation(self, user: str, until: float) -> bool:
        """Whether others share what is revoked here; ``revoke`` has told them of it."""
        return isinstance(self._broker, RedisBroker)

    def remember(self, user: str, until: float) -> None:
        """Let a user begin nothing until then, who was revoked before this process began."""
        self._admission.revoke(user, until)

    def on_revoked(self, heed: Callable[[str, float, float], object]) -> None:
        """Have every revocation told, whichever node it began at: user, until, spent."""

        def hear(revocation: Revocation) -> None:
            heed(revocation.user, revocation.until, revocation.spent)

        self._hub.on_revoked = hear

    async def stop(self) -> None:
        """Close every socket and stop serving."""
        if self._ticker is None:
            return
        self._ticker.cancel()
        self._ticker = None
        self._hub.close_all()
        await self._runner.cleanup()
        if self._lifecycle is not None:
            await self._lifecycle.stop()
        await self._broker.stop()
        await self._poster.stop()

    def _limits(self) -> Limits:
        settings = self._settings
        size = settings.max_message_bytes + 1024  # with all that is around them
        return Limits(
            settings.max_messages_per_second * size,
            settings.max_message_burst * size,
            settings.max_unauthenticated_per_address,
        )

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self._websockets.lag = time.monotonic() - due
            await self._hub.tick()

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._settings.tls_certificate is None:
            return None
        context = server_context()
        self._certificate_expiry = _load_certificate(context, self._settings)
        return context


def _load_certificate(context: ssl.SSLContext, settings: SignalingSettings) -> float:
    """Use these files for every handshake from now on; when the certificate ends, Unix time.

    :raises StartError: they cannot be used.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        raise StartError("signaling.tls_certificate, signaling.tls_key: HTTPS needs both")
    try:
        # Where the files do not fit, the context in use must not have half of them.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        ends = expiry(certificate)
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:
        raise StartError(f"signaling.tls_certificate, signaling.tls_key: {error}") from None
    return ends


def _secrets(secrets: Sequence[SecretStr]) -> list[str]:
    return [secret.get_secret_value() for secret in secrets]


def _broker(settings: SignalingSettings, redis: RedisSettings) -> MemoryBroker | RedisBroker:
    most = settings.max_queued_messages, settings.max_queued_bytes
    return choose_broker(redis, *most, webhooks=bool(settings.webhook_url))


def _hub_settings(settings: SignalingSettings) -> HubSettings:
    return HubSettings(**{name: getattr(settings, name) for name in HubSettings._fields})


def _peerjs_settings(settings: SignalingSettings) -> PeerJsSettings:
    return PeerJsSettings(**{name: getattr(settings, name) for name in PeerJsSettings._fields})


def _socket_settings(settings: SignalingSettings) -> SocketSettings:
    return SocketSettings(**{name: getattr(settings, name) for name in SocketSettings._fields})
