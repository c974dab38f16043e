"""The first byte of a packet tells what it is."""

import pytest

from turn.codec.demux import KINDS, RANGES, Kind, classify


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (0, Kind.STUN), (3, Kind.STUN),
        (4, Kind.OTHER), (16, Kind.OTHER), (20, Kind.OTHER), (63, Kind.OTHER),
        (64, Kind.CHANNEL), (79, Kind.CHANNEL), (80, Kind.CHANNEL), (127, Kind.CHANNEL),
        (128, Kind.OTHER), (191, Kind.OTHER), (255, Kind.OTHER),
    ],
)  # fmt: skip
def test_classify(first, kind):
    assert classify(first) is kind


def test_every_first_byte_is_in_one_range():
    assert len(KINDS) == 256
    assert [first for first, _, _ in RANGES] == [0, *(last + 1 for _, last, _ in RANGES[:-1])]
