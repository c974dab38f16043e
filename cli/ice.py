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


def provider(
    settings: Settings, ttl: int, resolve: Resolve = as_written, tenant: str = ""
) -> IceProvider:
    """What hands them out.

    :param ttl: seconds that credentials are good for.
    :param tenant: whose users they are for; "": no tenant's.
    """
    return IceProvider(*servers(settings, resolve, tenant), ttl, tenant)


def servers(
    settings: Settings, resolve: Resolve = as_written, tenant: str = ""
) -> tuple[Callable[[], list[Server]], str]:
    """What to hand out, and the secret that signs credentials for our own relay.

    Our own URLs are asked for each time, because the machine's addresses change.

    :param resolve: puts in the external addresses that the relay has found.
    :param tenant: as above.
    """
    configured = [
        Server(entry.urls, entry.username, entry.credential.get_secret_value())
        for entry in settings.signaling.ice_servers
    ]

    def current() -> list[Server]:
        return configured or [Server(urls) for urls in relay_urls(resolve(settings.turn))]

    return current, settings.turn.secret_of(tenant)
