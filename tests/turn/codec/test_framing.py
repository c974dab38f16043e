"""Streams cut into messages."""

import pytest

from tests.turn.codec.wire import (
    ALLOCATE_REQUEST,
    BINDING_REQUEST,
    SEND_INDICATION,
    attribute,
    channel_data,
    stun,
)
from turn.codec.errors import Malformed
from turn.codec.framing import StreamFramer

BINDING = stun(BINDING_REQUEST)
ALLOCATE = stun(ALLOCATE_REQUEST, attribute(0x0006, b"alice"))
LONGEST_STUN = stun(SEND_INDICATION, attribute(0x0013, bytes(65528)))
ODD = channel_data(0x4000, b"12345")
EVEN = channel_data(0x7FFF, b"1234")
EMPTY = channel_data(0x4ABC, b"")
LONGEST_DATA = channel_data(0x4001, bytes(65535))


def on_stream(*messages: bytes) -> bytes:
    """Each message padded to a multiple of four."""
    return b"".join(message + bytes(-len(message) % 4) for message in messages)


def frames(framer: StreamFramer, *chunks: bytes) -> list[bytes]:
    """What the framer makes of these chunks, each in a buffer that is used again, as reads are."""
    found = []
    for chunk in chunks:
        buffer = bytearray(chunk)
        found += [bytes(frame) for frame in framer.feed(memoryview(buffer))]
        buffer[:] = b"\xee" * len(buffer)
    return found


def begun() -> StreamFramer:
    """A framer that has seen a STUN message."""
    framer = StreamFramer()
    assert frames(framer, BINDING) == [BINDING]
    return framer


@pytest.mark.parametrize("messages", [
    (BINDING,),
    (BINDING, ALLOCATE),
    (ODD, EVEN, EMPTY, ODD),
    (ALLOCATE, ODD, BINDING, EVEN),
    (LONGEST_STUN, LONGEST_DATA, BINDING),
])  # fmt: skip
def test_messages_in_one_chunk(messages):
    assert frames(begun(), on_stream(*messages)) == list(messages)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 19])
def test_messages_in_small_chunks(size):
    messages = [ALLOCATE, ODD, EMPTY, BINDING, EVEN, ODD]
    data = on_stream(*messages)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    assert frames(StreamFramer(), *chunks) == messages


def test_two_chunks_cut_anywhere():
    messages = [ALLOCATE, ODD, EMPTY, BINDING]
    data = on_stream(*messages)
    for cut in range(len(data) + 1):
        assert frames(StreamFramer(), data[:cut], data[cut:]) == messages


def test_message_waits_for_its_padding():
    """Else the padding would begin the next message."""
    framer = begun()
    assert frames(framer, ODD) == []
    assert frames(framer, bytes(2)) == []
    assert frames(framer, bytes(1) + EVEN) == [ODD, EVEN]


def test_whole_messages_are_not_copied():
    buffer = bytearray(on_stream(BINDING, ALLOCATE))
    for frame in StreamFramer().feed(memoryview(buffer)):
        assert frame.obj is buffer


def test_nothing_is_kept_of_whole_messages():
    framer = begun()
    frames(framer, on_stream(LONGEST_DATA, LONGEST_STUN))
    assert len(framer._rest) == 0


def test_no_more_is_kept_than_one_message():
    framer = begun()
    stream = on_stream(LONGEST_DATA, LONGEST_STUN)
    for start in range(0, len(stream), 1000):
        frames(framer, stream[start : start + 1000])
        assert len(framer._rest) <= 65_552


# What is not ours ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",  # letters look like channel numbers
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH",
        b"\x16\x03\x01\x02\x00\x01",  # TLS
        b"\x80\x00",  # RTP
        b"\x04",
        ODD,
    ],
    ids=["HTTP", "HTTP/2", "SSH", "TLS", "RTP", "first byte 4", "channel data before any STUN"],
)
def test_stream_that_does_not_begin_with_stun(first_bytes):
    for size in (1, len(first_bytes)):
        with pytest.raises(Malformed):
            frames(StreamFramer(), first_bytes[:size])


@pytest.mark.parametrize("junk", [b"\x04", b"\x16\x03", b"\x80\0\0\0", b"\xff" * 100])
def test_junk_behind_messages(junk):
    framer = StreamFramer()
    feeding = framer.feed(memoryview(on_stream(BINDING, ODD) + junk))
    assert [bytes(next(feeding)), bytes(next(feeding))] == [BINDING, ODD]
    with pytest.raises(Malformed):
        next(feeding)


@pytest.mark.parametrize("length", [1, 2, 3, 65533, 65534, 65535])
def test_stun_length_that_is_no_multiple_of_four(length):
    header = b"\0\1" + length.to_bytes(2)
    for chunks in ([header], [header[:3], header[3:]]):
        with pytest.raises(Malformed, match="multiple of four"):
            frames(StreamFramer(), *chunks)


@pytest.mark.parametrize("length", [0, 1, 65532, 65533, 65534, 65535])
def test_length_at_its_ends(length):
    message = channel_data(0x4000, bytes(length))
    assert frames(begun(), on_stream(message, EVEN)) == [message, EVEN]
