"""A program is loaded, soon, whatever else happens to the process meanwhile."""

import signal
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from turn.kernel.bpf import OBJECT_INFO, OF_INFO, address_of, call
from turn.kernel.program import FRAMES, RELAY, Source, load

PROGRAM_INFO = struct.Struct("=216xI")
"""struct bpf_prog_info of <linux/bpf.h>, up to verified_insns (Linux 5.16; before, 0)."""
MOST_FOLLOWED = 100_000
"""Instructions, about 1 µs each; a kernel refuses a program at a million."""


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


@pytest.mark.parametrize("source", [RELAY, FRAMES], ids=lambda source: source.section)
def test_the_verifier_has_little_to_follow(source: Source):
    loaded, info = load(source=source), bytearray(PROGRAM_INFO.size)
    with closing(loaded):
        call(OBJECT_INFO, "looking", OF_INFO.pack(loaded.fd, len(info), address_of(info)))
    assert PROGRAM_INFO.unpack(info)[0] < MOST_FOLLOWED
