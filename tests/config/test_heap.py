"""The garbage collector of a process that serves, and what it may rely on."""

import gc
import subprocess
import sys

from tests.turn.world import PEER, World, code_of
from turn.allocation.model import Limits
from turn.codec import registry

SETTLED = """
import gc, asyncio
from config.heap import OLDER, OLDEST, YOUNG, settle
settle()
assert gc.get_freeze_count() > 10_000
assert gc.get_threshold() == (YOUNG, OLDER, OLDEST)
"""


def test_what_is_there_at_the_start_is_not_looked_at_again():
    subprocess.run([sys.executable, "-c", SETTLED], check=True)


def come_and_go(world):
    client = world.client()
    assert code_of(client.allocate()) == 0
    client.bind(0x4000, PEER)
    client.permit(PEER)
    assert code_of(client.refresh((registry.LIFETIME, 0))) == 0


def test_requests_and_allocations_leave_no_cycles_behind():
    """Else memory would wait for the collector, which comes seldom."""
    world = World(Limits(allocations_per_user=0, allocations_per_address=0))
    gc.collect()
    gc.disable()
    try:
        for _ in range(200):
            come_and_go(world)
        world.opener.opened.clear()
        assert gc.collect() < 200
    finally:
        gc.enable()
