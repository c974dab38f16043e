"""The signaling service that the settings ask for, with the ICE servers that it hands out."""

from cli import ice
from config.schema import Settings
from signaling.server import SignalingService
from turn.admin.journal import Journal


class Signaling:
    """A service of the process, and what a reload changes of it."""

    def __init__(
        self, settings: Settings, journal: Journal, resolve: ice.Resolve = ice.as_written
    ) -> None:
        """Make it; nothing is started yet.

        :param resolve: what the relay in this process knows of its external addresses.
        """
        self._resolve = resolve
        ttl, tenant = int(settings.signaling.ice_ttl), settings.signaling.ice_tenant
        provider = ice.provider(settings, ttl, resolve, tenant)
        self.service = SignalingService(settings.signaling, provider, settings.redis, journal.tell)

    def reload(self, settings: Settings) -> None:
        """Apply new settings. :raises StartError: they cannot be; the old ones stay."""
        self.service.reload(settings.signaling)
        self.service.ice.replace(
            *ice.servers(settings, self._resolve, settings.signaling.ice_tenant),
            int(settings.signaling.ice_ttl),
        )
