"""What the admin listener asks of a service; ``turn`` and ``signaling`` each have one."""

from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from turn.metrics import Collector


class Collection(Protocol):
    """Things of one kind that can be listed, looked at and ended."""

    name: str
    """As in the path: ``allocations``."""
    noun: str
    """One of them: ``allocation``."""
    ends: str
    """What ending one does, as a sentence."""
    summary: type[Struct]
    """Of one in a list; has a field ``id``, and can be filtered by every other."""
    details: type[Struct]
    """Of one that is looked at."""

    async def part(self) -> str:
        """Where the list is a part of something only: of what, and where the rest is; else ""."""

    async def snapshot(self) -> Mapping[str, Any]:
        """Those that there are now, by id."""

    def summarize(self, thing: Any, now: float) -> Struct:
        """A thing of the snapshot in a line. :param now: monotonic time."""

    async def inspect(self, thing: Any, now: float) -> Struct:
        """All of it."""

    async def end(self, thing: Any) -> None:
        """End it; one that is gone already is no mistake. :raises ConnectionError: not now."""


class Service(Protocol):
    """A service of this process."""

    name: str
    collector: Collector
    draining: bool
    figures_type: type[Struct]
    events: Names[str]
    """The kinds of events that it tells of (``turn.telling``)."""
    collections: Sequence[Collection]

    def ready(self) -> list[str]:
        """What keeps it from being sent traffic, one sentence each; empty: nothing."""

    async def refresh(self) -> None:
        """Have the collector and the figures say what is true now, if they do not anyway."""

    def figures(self) -> Struct:
        """How it goes, in numbers."""

    def left(self) -> Mapping[str, int]:
        """What a drain waits for."""

    async def drain(self, seconds: float) -> None:
        """Turn new work away; gives back once nothing is left, or after ``seconds``."""

    def resume(self) -> None:
        """Take new work again."""

    async def revoke(self, user: str, until: float) -> int:
        """End what a user has, and let it begin nothing until then (Unix time).

        :returns: how many allocations or sessions ended.
        :raises ConnectionError: it is done here, and others could not be told.
        """

    async def restore(self, user: str) -> None:
        """Let a user that was revoked begin again. :raises ConnectionError: here alone."""


class Control(Protocol):
    """What the API can have done to the process."""

    def reload(self) -> list[str]:
        """Read the configuration again; the problems for which it was refused, if any."""

    def set_log_level(self, level: str) -> None:
        """Write these log lines and more important ones, until the next reload."""

    async def spread_revocation(self, user: str, until: float) -> bool:
        """Tell every process that shares the Redis what was revoked here; whether there is one.

        :param until: Unix time; 0: it is taken back.
        :raises ConnectionError: they cannot be told now.
        """

    log_level: str
    """The least important lines that are written."""
    reloaded: bool
    """Whether the configuration that was to be loaded last is in use."""
