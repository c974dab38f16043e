"""Keys of tokens that one worker asks of another, message by message (RFC 7635)."""

from collections.abc import Sequence
from itertools import count

import msgspec
import pytest
from msgspec import Struct

from turn.auth.third_party import Grant
from turn.codec.errors import StunError
from turn.workers.keys import MOST_AT_ONCE, Keys
from turn.workers.messages import FROM_WORKER, TO_WORKER, AskKey, Key

HOST, OTHER = "192.0.2.7", "192.0.2.8"
THEIRS = 0x01ABCDEF
GRANT = Grant("kid", b"\x00\xff key", 1_800_000_000.5)


class Side:
    """A worker that asks; what it says and what its clients' requests are told."""

    def __init__(self) -> None:
        self.sent: list[Struct] = []
        self.told: list[Grant | None] = []
        self.keys = Keys(0, count(7), self._send)

    def _send(self, message: Struct, descriptors: Sequence[int] = ()) -> None:
        self.sent.append(message)

    def ask(self, host: str = HOST) -> None:
        """Ask for the same key."""
        self.keys.ask(THEIRS, host, self.told.append)


async def test_it_is_told_once() -> None:
    side = Side()
    side.ask()
    assert side.sent == [AskKey(7, 0, 1, THEIRS)]
    side.keys.answered(8, GRANT)  # to the process that this one follows
    assert side.told == []
    side.keys.answered(7, GRANT)
    side.keys.answered(7, None)
    assert side.told == [GRANT]


async def test_an_address_asks_for_so_much_at_once_and_no_more() -> None:
    """It has proved nothing yet."""
    side = Side()
    for _ in range(MOST_AT_ONCE):
        side.ask()
    with pytest.raises(StunError) as refused:
        side.ask()
    assert refused.value.code == 508
    side.ask(OTHER)
    side.keys.worker_gone(0)
    assert side.told == []
    side.keys.worker_gone(1)
    assert side.told == [None] * (MOST_AT_ONCE + 1)
    side.ask()


@pytest.mark.parametrize("grant", [GRANT, None])
def test_it_passes_as_it_is(grant: Grant | None) -> None:
    data = msgspec.msgpack.encode(Key(7, 0, grant))
    assert TO_WORKER.decode(data) == FROM_WORKER.decode(data) == Key(7, 0, grant)
