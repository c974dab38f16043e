"""The services of a process and their admin listener, and what an operator changes of them."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog

from config.load import ConfigError
from config.log import set_level, set_up
from config.schema import Settings
from config.section import StartError
from config.systemd import Supervisor
from turn.admin.journal import Journal, JournalHandler
from turn.admin.listener import Admin
from turn.admin.probing import Probe

log = structlog.get_logger("icebroker")


class Runs(Protocol):
    """Whatever begins and ends with the process."""

    async def start(self) -> None:
        """Begin. :raises StartError, OSError: it cannot."""

    async def drain(self, seconds: float) -> None:
        """Let go of clients; gives back once they have gone, or after ``seconds``."""

    async def stop(self) -> None:
        """End."""


class Process:
    """What SIGHUP and the admin API change (``service.Control``)."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        services: Sequence[Any],
        reload: Callable[[Settings], Settings],
        probe: Probe,
        beside: Sequence[Runs] = (),
    ) -> None:
        """Set it up; nothing is started yet.

        :param services: each a ``service.Service``, and ``Runs``.
        :param reload: reads the settings again, given those in use, and applies them whole or not
            at all; raises ``ConfigError`` or ``StartError``.
        :param beside: what runs along and is nothing that an operator looks at.
        """
        self.settings = settings
        self.reloaded = True
        """Whether the configuration that was to be loaded last is in use."""
        self._reload = reload
        self._watcher = JournalHandler(journal.tell)
        self.log_level: str = settings.log.level
        """The least important lines that are written."""
        self._set_up_log()
        self.admin = Admin(settings.admin, services, journal, self, probe)
        self.services: list[Runs] = [*services, *beside, self.admin]

    def reload(self) -> list[str]:
        """What SIGHUP does: the configuration is read again, and applied whole or not at all.

        :returns: why it was refused; empty: it is in use.
        """
        problems = self._apply()
        Supervisor.of(os.environ).reloaded(problems)
        return problems

    def _apply(self) -> list[str]:
        self.reloaded = False  # also where a fault of ours ends it
        try:
            self.settings = self._reload(self.settings)
        except ConfigError as error:
            problems = error.problems
        except StartError as error:
            problems = [str(error)]
        else:
            self._set_up_log()
            self.admin.reload(self.settings.admin)
            self.reloaded = True
            log.info("configuration reloaded")
            return []
        for problem in problems:
            log.error("configuration refused; the one in use stays", problem=problem)
        return problems

    def drain_timeout(self, service: Runs) -> float:
        """Seconds that the clients of a service have to go elsewhere; 0 where it has none."""
        section = getattr(self.settings, getattr(service, "name", ""), None)
        return float(getattr(section, "drain_timeout", 0.0))

    def set_log_level(self, level: str) -> None:
        """Write these lines and more important ones, until the next reload."""
        set_level(level)
        self.log_level = level
        for service in self.services:
            if hasattr(service, "set_log_level"):  # it has processes of its own
                service.set_log_level(level)

    async def spread_revocation(self, user: str, until: float) -> bool:
        """Have what was revoked here hold in every process that shares the Redis.

        :returns: whether there is a Redis. :raises ConnectionError: it is away.
        """
        for service in self.services:
            if hasattr(service, "spread_revocation"):  # it knows the others
                return bool(await service.spread_revocation(user, until))
        return False

    def _set_up_log(self) -> None:
        set_up(self.settings.log, self._watcher)
        self.log_level = self.settings.log.level
