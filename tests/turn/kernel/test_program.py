"""A program is loaded, whatever else happens to the process meanwhile."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from turn.kernel.program import load


@contextmanager
def disturbed(seconds: float) -> Iterator[list[int]]:
    """A signal comes after a while; what has come by now."""
    came: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield came
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# The verifier looks for signals now and then: at one of these times it is at work.
@pytest.mark.parametrize("seconds", [0.005, 0.015, 0.04])
def test_a_signal_does_no_harm(seconds: float):
    with disturbed(seconds) as came:
        while not came:
            load().close()
