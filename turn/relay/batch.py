"""Datagrams read without ``recvfrom``: many at a time (recvmmsg(2)), or one with less around it.

The socket module has no recvmmsg, and makes text of each source's address, two tuples and two
numbers for every packet. Here the source stays the bytes that the kernel writes.
"""

import ctypes
import socket
import struct
from functools import lru_cache
from mmap import mmap

from turn.codec.values import Address

READS_PER_EVENT = 32
"""Datagrams in a row of one socket before the others' turn."""
LARGEST_DATAGRAM = 65535
DONT_WAIT = int(socket.MSG_DONTWAIT)
LINE = 64
"""Bytes that a processor's cache takes in at a time."""


class Part(ctypes.Structure):
    """``struct iovec``: where bytes are, and how many."""

    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """``struct msghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Entry(ctypes.Structure):
    """``struct mmsghdr``: a message, and how long it was."""

    _fields_ = (("message", Message), ("size", ctypes.c_uint32))


# The interpreter's lock is kept, because nothing here waits. No argument types: to check them takes
# ctypes as long as the call; pointers are made once.
LIBC = ctypes.PyDLL(None)
receive_one, receive_many = LIBC.recvmsg, LIBC.recvmmsg

# What lies at the start of a slot: struct sockaddr_in or sockaddr_in6 as the kernel fills it, of
# which port and address are the source (``routes.key_of``), then the first four bytes of the
# datagram: those of ChannelData, its number and its length.
HEADS = {
    socket.AF_INET: struct.Struct("!2x6s8xHH"),
    socket.AF_INET6: struct.Struct("!2x22s4xHH"),
}
FIRST_BYTES = 4
NAMES = {socket.AF_INET: struct.Struct("2x6s8x"), socket.AF_INET6: struct.Struct("2x22s4x")}
"""The source alone."""
IPV4_KEY = 6
"""Bytes of an IPv4 source: port and host."""
IPV4_BYTES = 4


class Inbox:
    """Reads datagrams, each into a slot of one buffer with its source before it."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.head = HEADS[family]
        """Of a slot: the source, and the datagram's first two numbers; stale where it has fewer."""
        self.begin = self.head.size - FIRST_BYTES
        """Where in a slot the datagram begins."""
        # A line more than it takes: or all slots would want the same places in the cache.
        stride = (self.head.size + LARGEST_DATAGRAM) // LINE * LINE + 2 * LINE
        self.buffer = mmap(-1, READS_PER_EVENT * stride)  # takes memory only where it is written
        self.view = memoryview(self.buffer)
        self.slots = tuple(range(0, len(self.buffer), stride))
        """Where in the buffer each slot begins."""
        entries = bytearray(READS_PER_EVENT * ctypes.sizeof(Entry))
        self._entries = (Entry * READS_PER_EVENT).from_buffer(entries)
        self._parts = (Part * READS_PER_EVENT)()
        self._aim()
        self._pointer = ctypes.byref(self._entries)
        self._sizes = memoryview(entries).cast("I")[
            Entry.size.offset // 4 :: ctypes.sizeof(Entry) // 4
        ]

    def _aim(self) -> None:
        """Point each entry at its slot; the kernel changes none of this."""
        buffer = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))
        parts = ctypes.addressof(self._parts)
        for number, slot in enumerate(self.slots):
            name, part = buffer + slot, parts + number * ctypes.sizeof(Part)
            self._parts[number] = Part(name + self.begin, LARGEST_DATAGRAM)
            self._entries[number].message = Message(name, self.begin, part, 1)

    def receive(self, descriptor: int) -> list[int]:
        """Read what waits at a socket; gives the sizes of the datagrams, slot by slot.

        None where nothing waits, or first the ICMP error of an earlier packet, which is read so.
        """
        count = receive_many(descriptor, self._pointer, READS_PER_EVENT, DONT_WAIT, None)
        sizes: list[int] = self._sizes[: max(count, 0)].tolist()
        return sizes

    def datagrams(self, descriptor: int) -> list[tuple[memoryview, Address]]:
        """The same as datagrams, good until the next reading, and whom each is from."""
        found = []
        for slot, size in zip(self.slots, self.receive(descriptor), strict=False):
            source, _, _ = self.head.unpack_from(self.buffer, slot)
            start = slot + self.begin
            found.append((self.view[start : start + size], address_of(source)))
        return found


class Letter:
    """Reads one datagram at a time: of sockets that seldom have two, to learn so costs as much."""

    def __init__(self, family: socket.AddressFamily, buffer: bytearray, begin: int) -> None:
        """Read to ``buffer``, from ``begin`` on."""
        name = NAMES[family]
        self.name = bytearray(name.size)
        """What the kernel writes of the source."""
        self.unpack = name.unpack
        """Gives the source (``routes.key_of``) of a name, alone in a tuple."""
        start = ctypes.addressof(ctypes.c_char.from_buffer(buffer, begin))
        self._part = Part(start, LARGEST_DATAGRAM)
        self._name = ctypes.c_char.from_buffer(self.name)
        place = ctypes.addressof(self._name)
        self.message = ctypes.byref(Message(place, name.size, ctypes.addressof(self._part), 1))
        """For ``receive_one``, which gives the datagram's size, below 0 where there is none."""


def address_of(key: bytes) -> Address:
    """The address that a client is looked up by (``routes.key_of``)."""
    host = key[2:] if len(key) == IPV4_KEY else key[6:]
    return Address(_text_of(host), int.from_bytes(key[:2]))


# A client asks several times in a row, and so do others behind its NAT: who share the text then,
# so that where they are many, it is at hand for each packet.
@lru_cache(maxsize=1024)
def _text_of(host: bytes) -> str:
    family = socket.AF_INET if len(host) == IPV4_BYTES else socket.AF_INET6
    return socket.inet_ntop(family, host)
