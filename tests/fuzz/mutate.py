"""Packets made wrong: small changes to good ones, which get further in than random bytes do."""

import random
import zlib
from collections.abc import Callable, Sequence

from turn.codec.integrity import FINGERPRINT_XOR

INTERESTING = (0x00, 0x01, 0x02, 0x03, 0x04, 0x3F, 0x40, 0x7F, 0x80, 0xFE, 0xFF)
LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 19, 20, 21, 0x7FFF, 0x8000, 0xFFFC, 0xFFFD, 0xFFFF)
NUMBERS = (0x0001, 0x0006, 0x0008, 0x000D, 0x0012, 0x0013, 0x001C, 0x8028, 0x7FFF, 0xFFFF)
MOST_BYTES = 4000

Change = Callable[["Mutator", bytearray], None]


class Mutator:
    """An endless source of packets, the same for the same seed."""

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._seeds = seeds
        self.random = random.Random(seed)

    def packet(self) -> bytes:
        """A good packet with one to six changes, its lengths and checksum often set right again."""
        data = bytearray(self.random.choice(self._seeds))
        for _ in range(self.random.randint(1, 6)):
            self.random.choice(CHANGES)(self, data)
        del data[MOST_BYTES:]
        if self.random.random() < 0.7:
            repair(data)
        return bytes(data)

    def chunks(self, stream: bytes) -> list[bytes]:
        """The stream cut at random."""
        cuts = sorted(self.random.randint(0, len(stream)) for _ in range(self.random.randint(0, 9)))
        return [
            stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        ]

    def _position(self, data: bytearray, width: int = 1) -> int:
        return self.random.randint(0, max(len(data) - width, 0))

    def _attribute(self, data: bytearray) -> int:
        """Where an attribute of the message begins, if the message is still one to that point."""
        starts, offset = [20], 20
        while offset + 4 <= len(data):
            starts.append(offset)
            length = int.from_bytes(data[offset + 2 : offset + 4])
            offset += 4 + length + -length % 4
        return self.random.choice(starts)

    def flip_bit(self, data: bytearray) -> None:
        if data:
            data[self._position(data)] ^= 1 << self.random.randrange(8)

    def set_byte(self, data: bytearray) -> None:
        if data:
            data[self._position(data)] = self.random.choice(INTERESTING)

    def cut_off(self, data: bytearray) -> None:
        del data[self._position(data) :]

    def take_out(self, data: bytearray) -> None:
        start = self._position(data)
        del data[start : start + self.random.choice(LENGTHS[:12])]

    def put_in(self, data: bytearray) -> None:
        start = self._position(data)
        data[start:start] = self.random.randbytes(self.random.choice(LENGTHS[:12]))

    def repeat(self, data: bytearray) -> None:
        start, size = self._position(data), self.random.randint(1, 60)
        data[start:start] = data[start : start + size] * self.random.randint(1, 8)

    def splice(self, data: bytearray) -> None:
        other = self.random.choice(self._seeds)
        data[self._attribute(data) :] = other[self._attribute(bytearray(other)) :]

    def lie_about_length(self, data: bytearray) -> None:
        start = self._attribute(data) + 2
        data[start : start + 2] = self.random.choice(LENGTHS).to_bytes(2)

    def rename_attribute(self, data: bytearray) -> None:
        start = self._attribute(data)
        data[start : start + 2] = self.random.choice(NUMBERS).to_bytes(2)

    def set_message_length(self, data: bytearray) -> None:
        data[2:4] = self.random.choice(LENGTHS).to_bytes(2)

    def add_attribute(self, data: bytearray) -> None:
        value = self.random.randbytes(self.random.choice(LENGTHS[:12]))
        head = self.random.choice(NUMBERS).to_bytes(2) + len(value).to_bytes(2)
        data += head + value + bytes(-len(value) % 4)


CHANGES: tuple[Change, ...] = (
    Mutator.flip_bit,
    Mutator.set_byte,
    Mutator.cut_off,
    Mutator.take_out,
    Mutator.put_in,
    Mutator.repeat,
    Mutator.splice,
    Mutator.lie_about_length,
    Mutator.rename_attribute,
    Mutator.set_message_length,
    Mutator.add_attribute,
)


def repair(data: bytearray) -> None:
    """Set a STUN message's length right, and its FINGERPRINT if it ends with one."""
    if len(data) < 20 or data[0] > 3:
        return
    data += bytes(-len(data) % 4)
    data[2:4] = (len(data) - 20).to_bytes(2)
    if data[-8:-4] == b"\x80\x28\x00\x04":
        data[-4:] = (zlib.crc32(data[:-8]) ^ FINGERPRINT_XOR).to_bytes(4)
