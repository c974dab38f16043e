"""Logs: for people on a terminal, JSON lines otherwise; never a secret, a token or an SDP."""

import logging
import sys

import structlog

from config.schema import LogSettings


class _NoHttp(logging.Filter):
    """Leaves out what strangers send that is no HTTP.

    aiohttp writes a traceback of each: they could fill the log, and what they sent stands there,
    with a token that it may have had.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or kind.__module__ != "aiohttp.http_exceptions"


NO_HTTP = _NoHttp()
ALLOCATIONS = "turn.allocations"
"""Writes a line as each allocation begins and ends (``log.allocations``)."""


def set_up(settings: LogSettings, watcher: logging.Handler | None = None) -> None:
    """Send our log lines and those of the libraries to standard error, in one format.

    :param watcher: hears of them too.
    """
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,  # which worker it is, where there are several
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderers: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # The usual one shows what every variable holds: tokens and secrets are among them.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.getLogger("aiohttp.server").addFilter(NO_HTTP)
    root = logging.getLogger()
    root.handlers[:] = [handler, watcher] if watcher else [handler]
    set_level(settings.level)
    # Of its own, so that it may be written where nothing else is, and need not be at "debug".
    logging.getLogger(ALLOCATIONS).setLevel("INFO" if settings.allocations else "CRITICAL")


def set_level(level: str) -> None:
    """Write these lines and more important ones."""
    logging.getLogger().setLevel(level.upper())
    # asyncio's debug lines tell of every selector event; aiohttp's access log of every address.
    logging.getLogger("asyncio").setLevel("INFO" if level == "debug" else "WARNING")
