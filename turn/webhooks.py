"""Tells the operator's back end how allocations begin and end (``turn.webhook_url``).

What is to be told waits in memory. What is not taken within the process's last words, or where
another one goes on at once, is put into ``state_directory`` for that one to tell.
"""

import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from config.turn import TurnSettings
from config.webhooks.delivery import Delivery
from config.webhooks.post import Poster
from config.webhooks.waiting import Kept, Queued, WaitingEvents
from turn.assemble import state_folder
from turn.back_end import signed_by
from turn.journal import read_own, write_own
from turn.stats import Tally
from turn.telling import Tell, Told, facts_of

log = structlog.get_logger("turn")

KINDS = {"allocation_created": "allocation.created", "allocation_closed": "allocation.closed"}
"""What is told, by what happens (``turn.telling``)."""
LAST_WORDS = 5.0
"""Seconds that a relay that stops has to tell of what it has closed."""


class _Waiting(WaitingEvents):
    """The queue of this process (``waiting.Queue``)."""

    async def take_events(self, most: int, lease: float) -> list[Queued]:
        """Those that are due."""
        return self.take(most, lease)

    async def end_events(self, ids: Sequence[str]) -> None:
        """They are delivered, or given up."""
        self.end(ids)

    async def retry_event(self, event_id: str, delay: float) -> None:
        """Have one due again."""
        self.retry(event_id, delay)


class Webhooks:
    """Hears what happens, and tells it."""

    def __init__(self, settings: TurnSettings) -> None:
        """Prepare; nothing is told before ``start``."""
        self.counts: Tally[str] = Tally()
        """Tries, by how they ended."""
        self._relay = secrets.token_hex(8)
        """Of this process: an allocation's number comes again in the next one."""
        folder = state_folder(settings)
        self._file = Path(folder) / "webhooks" if folder else None
        self._waiting = _Waiting(nowhere={"relay": self._relay})
        self._poster = Poster(*signed_by(settings))
        self._delivery = Delivery(
            self._waiting, self._poster, settings.webhook_url, self.counts,
            together="allocation", service="turn", last_words=LAST_WORDS,
        )  # fmt: skip
        self._serves = self._delivers = False

    @property
    def on(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self._delivery.url)

    def replace(self, settings: TurnSettings) -> None:
        """Tell it as these settings have it; what waits is told there too, or nowhere."""
        self._poster.replace(*signed_by(settings))
        self._delivery.url = settings.webhook_url
        if not self.on:
            self._waiting.clear()
        self._deliver()

    def start(self) -> None:
        """Begin to deliver, now or once a reload wants it."""
        self._serves = True
        self._load()
        self._deliver()

    async def stop(self, *, leave: bool = False) -> None:
        """Tell what waits, for a moment. :param leave: another process goes on with it at once."""
        self._serves = False
        if self._delivers:
            self._delivers = False
            await self._delivery.stop(now=leave and self._file is not None)
        await self._poster.stop()
        if self.on and len(self._waiting):
            self._keep()

    def _load(self) -> None:
        """Take in what the last process has not told."""
        if self._file is None or not self.on:
            return
        try:
            self._waiting.load(msgspec.json.decode(read_own(self._file), type=list[Kept]))
            self._file.unlink()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # also what msgspec cannot decode
            log.warning(
                "what the last process has not told the back end is lost", reason=str(error)
            )

    def _keep(self) -> None:
        count = len(self._waiting)
        try:
            if self._file is not None:
                write_own(self._file, msgspec.json.encode(self._waiting.dump()))
                return
            why = "there is no turn.state_directory"
        except OSError as error:
            why = error.strerror or str(error)
        log.warning("the back end is not told of everything", events=count, reason=why)

    def also(self, tell: Tell) -> Tell:
        """Hear what is told to another."""

        def both(kind: str, told: Told) -> None:
            if self.on and kind in KINDS:
                told = facts_of(told)
                self.tell(kind, told)
            tell(kind, told)

        return both

    def tell(self, kind: str, told: Told) -> None:
        """Take what has happened (``turn.telling.Tell``)."""
        if self.on and kind in KINDS:
            self._waiting.note(KINDS[kind], relay=self._relay, **facts_of(told))

    def _deliver(self) -> None:
        if self._serves and self.on and not self._delivers:
            self._delivers = True
            self._delivery.start()
