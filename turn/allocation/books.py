"""The books that quotas are held against: who has how much of what.

One relay process keeps its own; several that share a machine's addresses keep theirs together,
and are each held to what all of them have given out (``turn.workers``).
"""

from collections.abc import Mapping
from typing import Protocol

from turn.bandwidth import Key, Twins
from turn.codec.values import Address
from turn.stats import DropReason

Most = Mapping[str, int]
"""The limits, by what is counted (``Key[0]``); what is not there has none."""
NO_LIMITS: Most = {}


class Books(Protocol):
    """Counts that are taken all together or not at all."""

    def take(self, amounts: Mapping[Key, int], most: Most = NO_LIMITS) -> str:
        """Take so many more of everything, or nothing where that makes more than a limit.

        :returns: what the first one that is over its limit counts (``Key[0]``); "": all taken.
        """

    def give(self, amounts: Mapping[Key, int]) -> None:
        """Give back what was taken."""

    def has(self, key: Key) -> bool:
        """Whether this process has anything of it."""

    def opened(self, relayed: Address, *, is_tcp: bool = False) -> None:
        """An allocation relays from this address now.

        :param is_tcp: connections (RFC 6062); the same port for packets is another one's.
        """

    def closed(self, relayed: Address, *, is_tcp: bool = False) -> None:
        """It does no more."""

    def handed_over(self, relayed: Address) -> None:
        """Another worker goes on with it: it stays a peer of whoever sends there."""

    def is_live(self, relayed: Address, *, is_tcp: bool = False) -> bool:
        """Whether another worker has an allocation that relays from this address."""

    def ports_in_use(self, host: str) -> int:
        """Ports of a relay address that others hold, as far as that is known."""

    def budgets(self, key: Key, rate: int, reason: DropReason) -> Twins | None:
        """The byte budgets of something that is counted here, each way, where they are shared."""


def key_of_relay(relayed: Address, *, is_tcp: bool) -> Key:
    """What counts a relayed address."""
    return "tcp_relay" if is_tcp else "relay", f"{relayed.host} {relayed.port}"


class OwnBooks:
    """The books of a process that has no others beside it."""

    def __init__(self) -> None:
        self._counts: dict[Key, int] = {}

    def take(self, amounts: Mapping[Key, int], most: Most = NO_LIMITS) -> str:
        """Take all, or nothing."""
        counts = self._counts
        after = {key: counts.get(key, 0) + amount for key, amount in amounts.items()}
        if most:
            for key, amount in after.items():
                if key[0] in most and amount > most[key[0]]:
                    return key[0]
        counts.update(after)
        return ""

    def give(self, amounts: Mapping[Key, int]) -> None:
        """Give back; what nobody has any more leaves nothing behind."""
        counts = self._counts
        for key, amount in amounts.items():
            left = counts.get(key, 0) - amount
            if left > 0:
                counts[key] = left
            else:
                counts.pop(key, None)

    def has(self, key: Key) -> bool:
        """Whether there is anything of it."""
        return key in self._counts

    def opened(self, relayed: Address, *, is_tcp: bool = False) -> None:
        """Nobody else has to know."""

    def closed(self, relayed: Address, *, is_tcp: bool = False) -> None:
        """Nobody else has to know."""

    def handed_over(self, relayed: Address) -> None:
        """There is no other worker."""

    def is_live(self, relayed: Address, *, is_tcp: bool = False) -> bool:
        """There is no other worker."""
        return False

    def ports_in_use(self, host: str) -> int:
        """There is no other worker."""
        return 0

    def budgets(self, key: Key, rate: int, reason: DropReason) -> Twins | None:
        """They are this process's own."""
        return None
