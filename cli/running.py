"""The process that runs one or both of the services until a signal ends it."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cli.options import fail
from config.schema import Settings
from config.section import StartError
from turn.admin.journal import Journal
from turn.admin.life import run as run_process
from turn.admin.process import Process, Runs


class Part(Protocol):
    """One of the services, made of the settings."""

    @property
    def service(self) -> Any:
        """A ``turn.admin.service.Service``, and ``Runs``."""

    def reload(self, settings: Settings) -> None:
        """Apply new settings. :raises StartError: they cannot be; the old ones stay."""


def run(
    settings: Settings,
    journal: Journal,
    parts: Sequence[Part],
    load: Callable[[Settings], Settings],
    beside: Sequence[Runs] = (),
    ready: Callable[[tuple[str, int]], None] = lambda _: None,
) -> None:
    """Run services until a signal ends them; ends the command where one cannot start.

    :param load: reads the settings again, given those in use; raises ``ConfigError``.
    :param beside: what runs along and is nothing that an operator looks at.
    :param ready: told where the admin listener is, once everything serves.
    """

    def reload(running: Settings) -> Settings:
        new = load(running)
        for part in parts:
            part.reload(new)
        return new

    async def probe(url: str) -> bytes:
        # Most processes are never asked.
        from cli.doctor import probe  # noqa: PLC0415

        return await probe(url, process.settings)

    services = [part.service for part in parts]
    process = Process(settings, journal, services, reload, probe, beside)
    try:
        run_process(process, lambda: ready(process.admin.address))
    except (OSError, StartError) as error:
        fail(getattr(error, "strerror", None) or str(error))
