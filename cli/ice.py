"""Which ICE servers the settings have signaling hand out: the configured ones, or our own relay."""

from collections.abc import Callable

from cli.machine import relay_urls
from config.schema import Settings
from signaling.ice import IceProvider, Server


def provider(settings: Settings, ttl: int) -> IceProvider:
    """What hands them out. :param ttl: seconds that credentials are good for."""
    return IceProvider(*servers(settings), ttl)


def servers(settings: Settings) -> tuple[Callable[[], list[Server]], str]:
    """What to hand out, and the secret that signs credentials for our own relay.

    Our own URLs are asked for each time, because the machine's addresses change.
    """
    configured = [
        Server(entry.urls, entry.username, entry.credential.get_secret_value())
        for entry in settings.signaling.ice_servers
    ]
    secret = settings.turn.secret[0].get_secret_value() if settings.turn.secret else ""
    return lambda: configured or [Server(urls) for urls in relay_urls(settings)], secret
