"""The decoder before hostile bytes: a value or ``Malformed``, whatever comes.

``FUZZ_ITERATIONS`` and ``FUZZ_SEED`` let it run for longer, or elsewhere.
"""

import contextlib
import os
import sys
from collections.abc import Callable

import pytest

from tests.fuzz import seeds
from tests.fuzz.mutate import Mutator
from turn.codec import channel, indication
from turn.codec.demux import Kind, classify
from turn.codec.errors import Malformed
from turn.codec.framing import StreamFramer
from turn.codec.integrity import verify
from turn.codec.message import parse_untrusted
from turn.codec.registry import ATTRIBUTES

ITERATIONS = int(os.environ.get("FUZZ_ITERATIONS", "30000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
MOST_KEPT = 65_552


def read_message(data: bytes) -> bool:
    """Read all that a message says; whether it is one."""
    try:
        message = parse_untrusted(data)
    except Malformed:
        return False
    verify(message, seeds.KEY)
    message.unknown_required(frozenset())
    for attribute in ATTRIBUTES.values():
        with contextlib.suppress(Malformed):
            message.get(attribute)
        with contextlib.suppress(Malformed):
            message.get_all(attribute)
    return True


def read_indication(data: bytes) -> bool:
    """Both ways to read a Send indication mean the same."""
    view = memoryview(data)
    short = long = None
    with contextlib.suppress(Malformed):
        short = indication._parse_plain_untrusted(view)
    with contextlib.suppress(Malformed):
        long = indication._parse_any_untrusted(view)
    assert short is None or short == long
    return long is not None


def read_channel_data(data: bytes) -> bool:
    try:
        number, payload = channel.parse_untrusted(memoryview(data))
    except Malformed:
        return False
    assert classify(data[0]) is Kind.CHANNEL
    assert data.startswith(channel.encode(number, bytes(payload), padded=False))
    return True


@pytest.mark.parametrize("read", [read_message, read_indication, read_channel_data])
def test_packets(read: Callable[[bytes], bool]):
    mutator = Mutator(seeds.ALL, SEED)
    good = 0
    for _ in range(ITERATIONS):
        data = mutator.packet()
        try:
            good += read(data)
        except Exception as error:
            error.add_note(data.hex())
            raise
    assert 0 < good < ITERATIONS, "the mutations are too coarse, or too fine, to find anything"


def cut(chunks: list[bytes]) -> tuple[list[bytes], bool]:
    """What a framer makes of these chunks, and whether they are good to the end."""
    framer, frames = StreamFramer(), []
    try:
        for chunk in chunks:
            for frame in framer.feed(memoryview(chunk)):
                frames.append(bytes(frame))  # noqa: PERF401 (what came before a Malformed counts)
            assert len(framer._rest) <= MOST_KEPT
    except Malformed:
        return frames, False
    return frames, True


def test_streams():
    mutator = Mutator(seeds.ALL, SEED)
    for _ in range(ITERATIONS // 5):
        packets = [mutator.packet() for _ in range(mutator.random.randint(0, 4))]
        stream = b"".join((mutator.random.choice(seeds.STUN), *packets))
        chunks = mutator.chunks(stream)
        try:
            assert cut(chunks) == cut([stream])
        except Exception as error:
            error.add_note(" ".join(chunk.hex() for chunk in chunks))
            raise


# Work ---------------------------------------------------------------------------------------


def calls(function: Callable[[], object]) -> int:
    """The number of calls that it makes, in Python and in C."""
    count = 0

    def profile(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def of_many_attributes(count: int) -> bytes:
    """A message of the smallest attributes, all different."""
    body = b"".join((0x1000 + number).to_bytes(2) + b"\0\0" for number in range(count))
    return b"\0\1" + len(body).to_bytes(2) + seeds.STUN[0][4:20] + body


def bytewise(data: bytes) -> None:
    framer = StreamFramer()
    for position in range(len(data)):
        list(framer.feed(memoryview(data)[position : position + 1]))


@pytest.mark.parametrize(
    "work",
    [
        lambda size: read_message(of_many_attributes(size)),
        lambda size: bytewise(of_many_attributes(size)),
        lambda size: cut([of_many_attributes(0) * size]),
    ],
    ids=["many attributes", "one byte at a time", "many messages"],
)
def test_work_grows_with_the_bytes_and_no_faster(work: Callable[[int], object]):
    assert calls(lambda: work(4000)) < 2.2 * calls(lambda: work(2000))
