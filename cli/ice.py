"""Which ICE servers the settings have signaling hand out: the configured ones, or our own relay."""

from collections.abc import Callable

from cli.machine import relay_urls
from config.schema import Settings
from config.turn import TurnSettings
from signaling.ice import IceProvider, Server

Resolve = Callable[[TurnSettings], TurnSettings]


def as_written(turn: TurnSettings) -> TurnSettings:
    """The relay's settings where nobody knows more of its external addresses."""
    return turn


def provider(settings: Settings, ttl: int, resolve: Resolve = as_written) -> IceProvider:
    """What hands them out. :param ttl: seconds that credentials are good for."""
    return IceProvider(*servers(settings, resolve), ttl)


def servers(
    settings: Settings, resolve: Resolve = as_written
) -> tuple[Callable[[], list[Server]], str]:
    """What to hand out, and the secret that signs credentials for our own relay.

    Our own URLs are asked for each time, because the machine's addresses change.

    :param resolve: puts in the external addresses that the relay has found.
    """
    configured = [
        Server(entry.urls, entry.username, entry.credential.get_secret_value())
        for entry in settings.signaling.ice_servers
    ]
    secret = settings.turn.secret[0].get_secret_value() if settings.turn.secret else ""

    def current() -> list[Server]:
        return configured or [Server(urls) for urls in relay_urls(resolve(settings.turn))]

    return current, secret
