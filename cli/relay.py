"""The relay that the settings ask for: one process, or a pool of workers."""

import os

from config.schema import Settings
from config.systemd import DescriptorStore
from turn import assemble
from turn.admin.journal import Journal
from turn.admin.process import Runs
from turn.common import alone
from turn.relay.shelf import NO_SHELF
from turn.server import TurnService
from turn.workers.pool import WorkerPool

REDIS_PORT = 6379
"""Redis's own, which the relay reaches for nobody, wherever ``redis.url`` leads."""


class Relay:
    """A service of the process, and what a reload changes of it."""

    def __init__(self, settings: Settings, journal: Journal) -> None:
        """Make it; nothing is started yet. :raises ConfigError: it cannot be as it is asked for."""
        shelf = DescriptorStore.of(os.environ) or NO_SHELF
        # Redis tells of revocations again, and of those that were taken back meanwhile.
        revoked = None if settings.redis.address() else assemble.revoked(settings.turn)
        ports = _own_ports(settings)
        self.service: TurnService | WorkerPool
        if settings.turn.workers > 1:
            shelf.clean()  # of a single process before; workers do without
            self.service = WorkerPool(settings.turn, settings.log, ports, journal, revoked)
        else:
            common = alone(shelf, revoked)
            self.service = TurnService(settings.turn, ports, common, tell=journal.tell)

    def reload(self, settings: Settings) -> None:
        """Apply new settings. :raises StartError: they cannot be; the old ones stay."""
        if isinstance(self.service, WorkerPool):
            self.service.reload(settings.turn, settings.log)
        else:
            self.service.reload(settings.turn)

    def watches(self, settings: Settings) -> list[Runs]:
        """What tells it of processes elsewhere, and them of it, if there is a Redis between.

        For a relay without signaling beside it, which would do that.
        """
        if not settings.redis.address():
            return []
        # Without a Redis none of its library is loaded.
        from signaling.revocations import RevocationWatch  # noqa: PLC0415

        return [RevocationWatch(settings.redis, self.service.heed)]


def _own_ports(settings: Settings) -> set[int]:
    """Ports of our own services, which no client may reach through the relay."""
    redis = settings.redis.address()
    ports = {settings.signaling.listen.port, REDIS_PORT}
    ports |= {endpoint.port for endpoint in settings.admin.listen}
    return ports | ({host.port for host in redis.hosts} if redis else set())
