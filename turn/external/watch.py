"""Keeping the external addresses right that STUN servers are asked for."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from config.turn import TurnSettings
from turn import assemble
from turn.external.answer import pairs_of
from turn.external.asking import Answered, Unanswered, ask
from turn.external.memory import Memory

log = structlog.get_logger("turn")

START_PATIENCE = 3.0
"""Seconds that a start waits for answers at most, all servers together."""
PATIENCE = 7.5
"""Seconds for each server afterwards: four requests."""
EVERY = 60.0
"""Seconds between rounds while all is well."""
FIRST_PAUSE = 2.0
"""Seconds until the next round where an answer is missing; then twice as long, up to ``EVERY``."""
NEXT = "is UDP to it allowed, and does it run? else write turn.external_addresses as pairs"

Results = Mapping[str, Answered | Unanswered | None]


class ExternalWatch:
    """Asks at the start and about once a minute, and calls back when there is something new.

    Without a STUN server in the settings it asks nobody.
    """

    def __init__(
        self,
        current: Callable[[], tuple[TurnSettings, list[str]]],
        changed: Callable[[], None],
        memory: Memory,
    ) -> None:
        """Prepare.

        :param current: the settings as they were read, and the machine's addresses.
        :param changed: told when ``resolved`` gives something else than before.
        :param memory: where what is found outlives the process.
        """
        self._current = current
        self._memory = memory
        self._changed = changed
        self._found: dict[str, str] = {}
        """Local -> external address; also where they are the same."""
        self._silent: set[str] = set()
        """The local addresses that nobody answered for in the last round."""
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def resolved(self, settings: TurnSettings, own: list[str]) -> TurnSettings:
        """The settings with pairs, as far as they are known, in place of servers."""
        if not settings.external_servers:
            return settings
        relays = assemble.relay_addresses(settings, own)
        hosts = [host for found in relays.values() for host in found]
        found = pairs_of(self._found, hosts, assemble.external_pairs(settings, relays))
        pairs = (*settings.external_pairs, *found)
        return settings.model_copy(update={"external_addresses": pairs})

    async def first(self) -> bool:
        """Ask for the first time, not for long; gives whether something may be known now.

        What the last process knew is good enough to begin with: calls may be waiting that go on.
        """
        settings, own = self._current()
        servers = settings.external_servers
        if not servers:
            return False
        hosts = hosts_to_ask(settings, own)
        known = self._memory.load()
        self._found = {host: known[host] for host in hosts if host in known}
        for host, public in self._found.items():
            log.info("external address", local=host, public=public, told_by="the last process")
        if len(self._found) == len(hosts):
            self.poke()
        else:
            await self._round(START_PATIENCE / len(servers))
        return True

    def start(self) -> None:
        """Ask again and again from now on."""
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    def poke(self) -> None:
        """Ask at once: settings or addresses have changed."""
        self._poked.set()

    def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()

    async def _go_on(self) -> None:
        pause = FIRST_PAUSE
        while True:
            has_servers = bool(self._current()[0].external_servers)
            wait = (pause if self._silent else EVERY) if has_servers else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._poked.wait()
            self._poked.clear()
            if await self._round(PATIENCE):
                self._changed()
            pause = min(2 * pause, EVERY) if self._silent else FIRST_PAUSE

    async def _round(self, patience: float) -> bool:
        """Ask for every address; gives whether something has changed."""
        settings, own = self._current()
        servers = settings.external_servers
        hosts = hosts_to_ask(settings, own) if servers else []
        answers = await asyncio.gather(*(ask(host, servers, patience) for host in hosts))
        before = self.resolved(*self._current())
        self._take(dict(zip(hosts, answers, strict=True)))
        return self.resolved(*self._current()) != before

    def _take(self, results: Results) -> None:
        """Learn from a round, and tell the log what is new."""
        found = {host: self._found[host] for host in results if host in self._found}
        unanswered = {}
        for host, result in results.items():
            if isinstance(result, Answered):
                known = self._found.get(host)
                found[host] = result.public
                if result.public != known or host in self._silent:
                    _log_found(host, result, known)
            elif isinstance(result, Unanswered):
                unanswered[host] = result.reason
        _log_silence({h: why for h, why in unanswered.items() if h not in self._silent}, found)
        if found != self._found:
            self._memory.save(found)
        self._found, self._silent = found, set(unanswered)


def hosts_to_ask(settings: TurnSettings, own: list[str]) -> list[str]:
    """The relay addresses whose external ones are not written down, the default ones first."""
    relays = assemble.relay_addresses(settings, own)
    written = {local for _, local in assemble.external_pairs(settings, relays)}
    return [host for found in relays.values() for host in found if host not in written]


def _log_found(host: str, answer: Answered, known: str | None) -> None:
    before = {"before": known} if known not in {None, answer.public} else {}
    log.info(
        "external address", local=host, public=answer.public, told_by=str(answer.server), **before,
        nat=answer.public != host,
    )  # fmt: skip


def _log_silence(reasons: Mapping[str, str], found: Mapping[str, str]) -> None:
    """One line for all that were answered for in the round before, or were never asked for."""
    if not reasons:
        return
    lost = [host for host in reasons if host in found]
    text = "no STUN server tells the external address"
    stays = "the last one stays" if len(lost) == len(reasons) else "clients are told the local one"
    log.warning(
        text, local=sorted(reasons), reason="; ".join(dict.fromkeys(reasons.values())),
        meanwhile=stays, next=NEXT,
    )  # fmt: skip
