"""What nobody may foresee: ports, tickets, tokens. How they are spread, and where they come from.

A port that can be foreseen lets strangers send to a peer before it is there; a ticket or a token
that can, take an allocation along (RFC 8656 §7.2, §21.1.6, RFC 8016 §5).
"""

import ast
import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from math import sqrt
from pathlib import Path

import pytest

from tests.turn.live import UDP, port_of, relay
from turn import common
from turn.codec import registry
from turn.codec.registry import Method
from turn.relay.ports import random_below

DRAWS, PORTS = 65536, 16384
SIGMAS = 8
"""Standard deviations that chance goes beyond less often than once in 10^8."""
TURN = Path(common.__file__).parent


def unevenness(values: Iterable[object], kinds: int) -> float:
    """Chi-square of how often each kind came, in standard deviations from what is usual."""
    counts = Counter(values)
    usual = counts.total() / kinds
    found = sum((count - usual) ** 2 for count in counts.values()) / usual
    found += usual * (kinds - len(counts))
    return (found - (kinds - 1)) / sqrt(2 * (kinds - 1))


def test_ports_are_spread_evenly_and_none_tells_the_next() -> None:
    drawn = [random_below(PORTS) for _ in range(DRAWS)]
    assert abs(unevenness((number // 256 for number in drawn), 64)) < SIGMAS
    assert abs(unevenness((number % 64 for number in drawn), 64)) < SIGMAS
    for part in (lambda number: number // 2048, lambda number: number % 8):
        pairs = zip(map(part, drawn[::2]), map(part, drawn[1::2]), strict=True)
        assert abs(unevenness(pairs, 64)) < SIGMAS
    steps = Counter(after - before for before, after in itertools.pairwise(drawn))
    assert max(steps.values()) < 40, "one of four is usual"


def test_this_would_see_a_counter_and_a_generator_that_repeats_itself() -> None:
    assert unevenness((number % 64 for number in range(640)), 64) == pytest.approx(-5.6, abs=0.1)
    assert unevenness((number % 32 for number in range(DRAWS)), 64) > SIGMAS
    assert unevenness(itertools.repeat(1, DRAWS), 64) > SIGMAS


@pytest.mark.parametrize("make", [common.alone().random_bytes, secrets.token_bytes])
def test_each_bit_of_what_proves_something_is_anybodys_guess(make: Callable[[int], bytes]) -> None:
    many = [make(16) for _ in range(4096)]
    assert len(set(many)) == len(many)
    most = SIGMAS * sqrt(len(many)) / 2
    for bit in range(128):
        ones = sum(int.from_bytes(each) >> bit & 1 for each in many)
        assert abs(ones - len(many) / 2) < most


async def test_what_clients_are_given_follows_no_order(connect) -> None:
    async with relay(mobility=True, max_allocations_per_user=0, allow_peers=[]) as service:
        ports, tickets = [], []
        for _ in range(64):
            client = await connect(port_of(service))
            reply = await client.request(Method.ALLOCATE, UDP, (registry.MOBILITY_TICKET, b""))
            relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
            assert relayed is not None
            ports.append(relayed.port)
            tickets.append(reply.get(registry.MOBILITY_TICKET))
    assert len(set(tickets)) == 64
    steps = Counter(after - before for before, after in itertools.pairwise(ports))
    assert max(steps.values()) < 5, "one port tells the next"
    rises = sum(after > before for before, after in itertools.pairwise(ports))
    assert 12 < rises < 51, "they go one way"


def test_no_generator_that_can_be_wound_back_is_anywhere_near() -> None:
    found = []
    for file in TURN.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found += [f"{file}: {name}" for name in names if name in {"random", "uuid"}]
    assert found == []
