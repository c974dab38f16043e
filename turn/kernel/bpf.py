"""The system call bpf(2), by ctypes: maps, programs, links; nothing here knows of TURN."""

import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

# <asm/unistd.h>; the system call has no wrapper in the C library.
SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
# enum bpf_cmd of <linux/bpf.h>.
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY = range(5)
PROGRAM_LOAD, OBJECT_PIN, OBJECT_GET, TEST_RUN, OBJECT_INFO, QUERY = 5, 6, 7, 10, 15, 16
RAW_TRACEPOINT_OPEN, LINK_CREATE, LINK_UPDATE = 17, 28, 29
# enum bpf_prog_type, enum bpf_attach_type, enum bpf_map_type.
CLASSIFIER, XDP, RAW_TRACEPOINT = 3, 6, 17
TCX_INGRESS, TCX_EGRESS, XDP_FRAMES = 46, 47, 37
PER_CPU_ARRAY, DEVICE_MAP = 6, 25
MMAPABLE = 1 << 10
READ_ONLY = 1 << 7
"""BPF_F_RDONLY_PROG, which the kernel adds to a map of devices by itself."""
BY_DRIVER = 1 << 2
"""XDP_FLAGS_DRV_MODE: not after the socket buffer is made, which costs more than tc does."""
LIVE_FRAMES = 1 << 1
# union bpf_attr, as each command reads it: up to the last field that we set.
OF_MAP = struct.Struct("=IIIIIII16s")
OF_ELEMENT = struct.Struct("=IIQQQ")
OF_PROGRAM = struct.Struct("=IIQQIIQII16sII")
OF_LINK = struct.Struct("=IIII32x")
OF_UPDATE = struct.Struct("=IIII")
OF_OBJECT = struct.Struct("=QII")
OF_INFO = struct.Struct("=IIQ")
# struct bpf_map_info, struct bpf_link_info of a tcx or XDP link: up to the last field that we read.
MAP_INFO = struct.Struct("=I4xIIII")
LINK_INFO = struct.Struct("=III4xII")
OF_TEST = struct.Struct("=IIIIQQIIIIQQIII4x")
OF_TRACEPOINT = struct.Struct("=QI4x")
# Device, attach type, flags (asked, found), where the ids would go, their number.
OF_QUERY = struct.Struct("=IIIIQI4x")
# struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
XDP_CONTEXT = struct.Struct("=6I")
ATTRIBUTE_BYTES: Final = 128
NAME_BYTES = 15
LOG_BYTES = 1 << 18
LOADS = 5
"""Of one program: so often signals may disturb it."""
ROOM_BYTES = 256
"""How much longer a program may make a frame."""

_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(OSError):
    """The kernel refused a command; the message says which and why."""


def _attribute(fields: bytes) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(fields, ATTRIBUTE_BYTES)


def call(command: int, what: str, attribute: bytes) -> int:
    """Make the system call. :raises BpfError: the kernel refused; ``what`` names it."""
    return _system_call(command, what, _attribute(attribute))


def _system_call(command: int, what: str, room: "ctypes.Array[ctypes.c_char]") -> int:
    number = SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise BpfError(errno.ENOSYS, f"{what}: no bpf(2) known for {platform.machine()}")
    result = int(_libc.syscall(number, command, room, ATTRIBUTE_BYTES))
    if result < 0:
        error = ctypes.get_errno()
        raise BpfError(error, f"{what}: {os.strerror(error)}")
    return result


def address_of(buffer: bytearray) -> int:
    """Where a buffer lies; it has to outlive every use, and must not be resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Shape(NamedTuple):
    """What a map is like; ``maps.h`` says it of each."""

    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


class Map:
    """A BPF map. ``close`` lets go of it; programs that use it, and pins, keep it alive."""

    def __init__(self, name: str, descriptor: int, shape: Shape) -> None:
        """Use the map that a descriptor stands for; it is ours to close."""
        self.name, self.shape, self.fd = name, shape, descriptor
        # Buffers that are made once: an update is then one system call and two copies, 3 µs.
        self._key = bytearray(shape.key_bytes)
        self._next_key = bytearray(shape.key_bytes)
        self._value = bytearray(shape.value_bytes)
        key, value = address_of(self._key), address_of(self._value)
        self._element = _attribute(OF_ELEMENT.pack(descriptor, 0, key, value, 0))
        self._following = _attribute(
            OF_ELEMENT.pack(descriptor, 0, key, address_of(self._next_key), 0)
        )
        self._first = _attribute(OF_ELEMENT.pack(descriptor, 0, 0, address_of(self._next_key), 0))
        self._number = SYSTEM_CALL[platform.machine()]

    @classmethod
    def create(cls, name: str, shape: Shape) -> Self:
        """Make one. :raises BpfError: the kernel refused."""
        kind, key_bytes, value_bytes, entries, flags = shape
        label = name.encode()[:NAME_BYTES]
        attribute = OF_MAP.pack(kind, key_bytes, value_bytes, entries, flags, 0, 0, label)
        return cls(name, call(MAP_CREATE, f"creating the map {name}", attribute), shape)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Use one that is pinned. :raises BpfError: there is none, or it is not for us."""
        descriptor = open_pinned(path)
        shape = Shape(*MAP_INFO.unpack_from(_info(descriptor, MAP_INFO.size)))
        return cls(path.name, descriptor, shape._replace(flags=shape.flags & ~READ_ONLY))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every element of a hash map that nobody else writes."""
        where = self._first
        while _libc.syscall(self._number, MAP_NEXT_KEY, where, OF_ELEMENT.size) == 0:
            self._key[:] = key = bytes(self._next_key)
            where = self._following
            if _libc.syscall(self._number, MAP_LOOKUP, self._element, OF_ELEMENT.size) == 0:
                yield key, bytes(self._value)
                self._key[:] = key

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        self._key[:] = key
        if _libc.syscall(self._number, MAP_LOOKUP, self._element, OF_ELEMENT.size) < 0:
            return None
        return bytes(self._value)

    def update(self, key: bytes, value: bytes) -> None:
        """Write an element. :raises BpfError: there is no room (ENOSPC, E2BIG) or memory."""
        self._key[:] = key
        self._value[:] = value
        if _libc.syscall(self._number, MAP_UPDATE, self._element, OF_ELEMENT.size) < 0:
            error = ctypes.get_errno()
            raise BpfError(error, f"writing the map {self.name}: {os.strerror(error)}")

    def delete(self, key: bytes) -> None:
        """Remove an element; one that is not there is no error."""
        self._key[:] = key
        _libc.syscall(self._number, MAP_DELETE, self._element, OF_ELEMENT.size)

    def memory(self) -> mmap.mmap:
        """The values of an array that was made mmapable, shared with the program."""
        return mmap.mmap(self.fd, self.shape.entries * self.shape.value_bytes)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def _unless_disturbed(load: Callable[[], int]) -> int:
    """What a load gives: a signal that comes makes the verifier give up, and it may begin anew."""
    for _ in range(LOADS - 1):
        try:
            return load()
        except BpfError as error:
            if error.errno != errno.EAGAIN:
                raise
    return load()


def load_program(kind: int, name: str, code: bytes, terms: str) -> int:
    """Load a program for tc and tcx, XDP, or a tracepoint; gives its descriptor.

    :raises BpfError: with the last lines of the verifier, where it was the verifier.
    """
    instructions, license_text = bytearray(code), bytearray(terms.encode() + b"\0")
    log = bytearray(LOG_BYTES)

    def attribute(level: int) -> bytes:
        return OF_PROGRAM.pack(
            kind,
            len(code) // 8,
            address_of(instructions),
            address_of(license_text),
            level,
            LOG_BYTES if level else 0,
            address_of(log) if level else 0,
            0,
            0,
            name.encode()[:NAME_BYTES],
            0,
            XDP_FRAMES if kind == XDP else 0,
        )

    what = f"loading the program {name}"
    try:
        return _unless_disturbed(lambda: call(PROGRAM_LOAD, what, attribute(0)))
    except BpfError as error:
        if error.errno not in {errno.EINVAL, errno.EACCES}:
            raise
    try:  # once more, for the verifier's words
        return _unless_disturbed(lambda: call(PROGRAM_LOAD, what, attribute(1)))
    except BpfError as error:
        words = log.split(b"\0", 1)[0].decode(errors="replace").strip().splitlines()[-4:]
        raise BpfError(
            error.errno, f"{error.strerror}; the verifier: {' | '.join(words)}"
        ) from None


def attach_tcx(program: int, device: int) -> int:
    """Run a program at a device's ingress (Linux 6.6); closing the descriptor ends that.

    :param device: the index of the device.
    :raises BpfError: the kernel refused.
    """
    return call(LINK_CREATE, "attaching by tcx", OF_LINK.pack(program, device, TCX_INGRESS, 0))


def attach_xdp(program: int, device: int) -> int:
    """Run a program in a device's driver (Linux 5.9); closing the descriptor ends that.

    :raises BpfError: the driver cannot, or another program is there (EBUSY).
    """
    attribute = OF_LINK.pack(program, device, XDP_FRAMES, BY_DRIVER)
    return call(LINK_CREATE, "attaching by XDP", attribute)


def programs_at(device: int, hook: int) -> int:
    """How many programs run at a hook of a device.

    :raises BpfError: there is no such hook (EINVAL), or it is not for us to know.
    """
    room = _attribute(OF_QUERY.pack(device, hook, 0, 0, 0, 0))
    _system_call(QUERY, "looking at a device", room)
    return int(OF_QUERY.unpack_from(room.raw)[5])


def attach_tracepoint(program: int, name: str) -> int:
    """Run a program at a tracepoint; closing the descriptor ends that.

    :raises BpfError: there is no such tracepoint, or it is not for us.
    """
    text = bytearray(name.encode() + b"\0")
    attribute = OF_TRACEPOINT.pack(address_of(text), program)
    return call(RAW_TRACEPOINT_OPEN, f"attaching to {name}", attribute)


def run_once(program: int, frame: bytes, device: int) -> tuple[int, bytes]:
    """What an XDP program says to a frame from a device, and what it makes of it.

    :raises BpfError: the device has no queue that frames come by, or it is not for us.
    """
    given, made = bytearray(frame), bytearray(len(frame) + ROOM_BYTES)
    context = bytearray(XDP_CONTEXT.pack(0, len(frame), 0, device, 0, 0))
    fields = (program, 0, len(given), len(made), address_of(given), address_of(made), 1, 0)
    tail = (len(context), 0, address_of(context), 0, 0, 0, 0)
    # The kernel answers where it was asked.
    room = _attribute(OF_TEST.pack(*fields, *tail))
    _system_call(TEST_RUN, "trying the program", room)
    _, verdict, _, size, *_ = OF_TEST.unpack_from(room.raw)
    return verdict, bytes(made[:size])


def run_live(program: int, frame: bytes, device: int, count: int, batch: int) -> None:
    """Have a program's verdict carried out on frames as if they had come from a device (5.18).

    :raises BpfError: this kernel cannot, or the device has no queue that frames come by.
    """
    given = bytearray(frame)
    context = bytearray(XDP_CONTEXT.pack(0, len(frame), 0, device, 0, 0))
    fields = (program, 0, len(given), 0, address_of(given), 0, count, 0)
    tail = (len(context), 0, address_of(context), 0, LIVE_FRAMES, 0, batch)
    call(TEST_RUN, "trying the driver", OF_TEST.pack(*fields, *tail))


def update_link(link: int, program: int) -> None:
    """Run another program where a link has one; not a packet passes between them."""
    call(LINK_UPDATE, "replacing the program", OF_UPDATE.pack(link, program, 0, 0))


def device_of(link: int) -> int:
    """The index of the device that a tcx or XDP link is at; 0: the device is gone."""
    return int(LINK_INFO.unpack_from(_info(link, LINK_INFO.size))[3])


def pin(descriptor: int, path: Path) -> None:
    """Keep a map or a link alive by a name in a bpffs. :raises BpfError: it cannot be."""
    name = bytearray(os.fsencode(path) + b"\0")
    call(OBJECT_PIN, f"pinning {path}", OF_OBJECT.pack(address_of(name), descriptor, 0))


def open_pinned(path: Path) -> int:
    """A descriptor of what is pinned. :raises BpfError: there is none, or it is not for us."""
    name = bytearray(os.fsencode(path) + b"\0")
    return call(OBJECT_GET, f"opening {path}", OF_OBJECT.pack(address_of(name), 0, 0))


def _info(descriptor: int, size: int) -> bytes:
    room = bytearray(size)
    call(OBJECT_INFO, "looking at it", OF_INFO.pack(descriptor, size, address_of(room)))
    return bytes(room)
