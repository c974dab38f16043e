"""Keeping the external addresses right that STUN servers are asked for."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

import structlog

from config.turn import TurnSettings
from config.values import ExternalAddress
from turn import assemble
from turn.admin.relay import ExternalEntry
from turn.external.answer import pairs_of
from turn.external.asking import Answered, Unanswered, ask
from turn.external.memory import Memory
from turn.metrics import External

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
MEND_PORTS = (
    "relayed ports are not those that peers see: give the relay 1:1 NAT or a public address, or "
    "have the NAT keep the ports of turn.relay_ports and forward them (UDP)"
)

Results = Mapping[str, Answered | Unanswered | None]


class _Found(NamedTuple):
    public: str
    """The external address; also where it is the local one."""
    confirmed: float = 0.0
    """Unix time; 0: not by this process."""
    keeps_ports: bool = True
    """False from the first answer on that names another port, until the address changes."""


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
        self._found: dict[str, _Found] = {}
        """By local address."""
        self._silent: set[str] = set()
        """The local addresses that nobody answered for in the last round."""
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def resolved(self, settings: TurnSettings, own: list[str]) -> TurnSettings:
        """The settings with pairs, as far as they are known, in place of servers."""
        if not settings.external_servers:
            return settings
        pairs = (*settings.external_pairs, *self._pairs(settings, own))
        return settings.model_copy(update={"external_addresses": pairs})

    def entries(self) -> list[ExternalEntry]:
        """What is known of each address that was asked for, for people."""
        found = self._found | {host: _Found("") for host in self._silent - self._found.keys()}
        return [
            ExternalEntry(
                local=host,
                public=one.public or None,
                confirmed=one.confirmed or None,
                keeps_ports=one.keeps_ports,
            )
            for host, one in found.items()
        ]

    def gauges(self) -> External | None:
        """The same for those who watch; None where nobody is asked."""
        entries = self.entries()
        if not entries:
            return None
        return External(min(it.confirmed or 0.0 for it in entries), len(self._port_mapping()))

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
        self._found = {host: _Found(known[host]) for host in hosts if host in known}
        for host, one in self._found.items():
            log.info("external address", local=host, public=one.public, told_by="the last process")
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
                same = known is not None and known.public == result.public
                kept = result.keeps_port and (known is None or not same or known.keeps_ports)
                found[host] = _Found(result.public, time.time(), kept)
                if not same or host in self._silent:
                    _log_found(host, result, known.public if known else None)
            elif isinstance(result, Unanswered):
                unanswered[host] = result.reason
        _log_silence({h: why for h, why in unanswered.items() if h not in self._silent}, found)
        if _publics(found) != _publics(self._found):
            self._memory.save(_publics(found))
        mapping = self._port_mapping()
        self._found, self._silent = found, set(unanswered)
        for pair in self._port_mapping() - mapping:
            log.warning("the NAT is not 1:1: it maps ports too", local=pair.local,
                        public=pair.public, next=MEND_PORTS)  # fmt: skip

    def _pairs(self, settings: TurnSettings, own: list[str]) -> list[ExternalAddress]:
        """What was found, as far as it is used."""
        relays = assemble.relay_addresses(settings, own)
        hosts = [host for found in relays.values() for host in found]
        written = assemble.external_pairs(settings, relays)
        return pairs_of(_publics(self._found), hosts, written)

    def _port_mapping(self) -> set[ExternalAddress]:
        """Pairs that clients are told, though the NAT between the two gives sockets other ports."""
        pairs = self._pairs(*self._current())
        return {pair for pair in pairs if not self._found[pair.local].keeps_ports}


def hosts_to_ask(settings: TurnSettings, own: list[str]) -> list[str]:
    """The relay addresses whose external ones are not written down, the default ones first."""
    relays = assemble.relay_addresses(settings, own)
    written = {local for _, local in assemble.external_pairs(settings, relays)}
    return [host for found in relays.values() for host in found if host not in written]


def _publics(found: Mapping[str, _Found]) -> dict[str, str]:
    return {host: one.public for host, one in found.items()}


def _log_found(host: str, answer: Answered, known: str | None) -> None:
    before = {"before": known} if known not in {None, answer.public} else {}
    log.info(
        "external address", local=host, public=answer.public, told_by=str(answer.server), **before,
        nat=answer.public != host,
    )  # fmt: skip


def _log_silence(reasons: Mapping[str, str], found: Mapping[str, _Found]) -> None:
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
