"""The system call bpf(2), by ctypes: maps, programs, links; nothing here knows of TURN."""

import ctypes
import errno
import mmap
import os
import platform
import struct
from typing import Final

# <asm/unistd.h>; the system call has no wrapper in the C library.
SYSTEM_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
# enum bpf_cmd of <linux/bpf.h>.
MAP_CREATE, MAP_UPDATE, MAP_DELETE, PROGRAM_LOAD, LINK_CREATE = 0, 2, 3, 5, 28
TEST_RUN = 10
# enum bpf_prog_type, enum bpf_attach_type, enum bpf_map_type.
CLASSIFIER = 3
TCX_INGRESS = 46
PER_CPU_ARRAY = 6
MMAPABLE = 1 << 10
# union bpf_attr, as each command reads it: up to the last field that we set.
OF_MAP = struct.Struct("=IIIIIII16s")
OF_ELEMENT = struct.Struct("=IIQQQ")
OF_PROGRAM = struct.Struct("=IIQQIIQII16sII")
OF_LINK = struct.Struct("=IIII32x")
OF_TEST = struct.Struct("=IIIIQQII")
ATTRIBUTE_BYTES: Final = 128
NAME_BYTES = 15
LOG_BYTES = 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(OSError):
    """The kernel refused a command; the message says which and why."""


def call(command: int, what: str, attribute: bytes) -> int:
    """Make the system call. :raises BpfError: the kernel refused; ``what`` names it."""
    number = SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise BpfError(errno.ENOSYS, f"{what}: no bpf(2) known for {platform.machine()}")
    room = ctypes.create_string_buffer(attribute, ATTRIBUTE_BYTES)
    result = int(_libc.syscall(number, command, room, ATTRIBUTE_BYTES))
    if result < 0:
        error = ctypes.get_errno()
        raise BpfError(error, f"{what}: {os.strerror(error)}")
    return result


def address_of(buffer: bytearray) -> int:
    """Where a buffer lies; it has to outlive every use, and must not be resized."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class Map:
    """A BPF map of our own. ``close`` gives it back; the programs that use it keep it alive."""

    def __init__(self, name: str, kind: int, sizes: tuple[int, int], entries: int, flags: int):
        """Create it.

        :param sizes: of a key and of a value, in bytes.
        :raises BpfError: the kernel refused.
        """
        self.name, self.entries, (self.key_bytes, self.value_bytes) = name, entries, sizes
        self.fd = call(
            MAP_CREATE,
            f"creating the map {name}",
            OF_MAP.pack(kind, *sizes, entries, flags, 0, 0, name.encode()[:NAME_BYTES]),
        )
        # Buffers that are made once: an update is then one system call and two copies, 3 µs.
        self._key = bytearray(self.key_bytes)
        self._value = bytearray(self.value_bytes)
        self._attribute = ctypes.create_string_buffer(
            OF_ELEMENT.pack(self.fd, 0, address_of(self._key), address_of(self._value), 0),
            ATTRIBUTE_BYTES,
        )
        self._number = SYSTEM_CALL[platform.machine()]

    def update(self, key: bytes, value: bytes) -> None:
        """Write an element. :raises BpfError: there is no room (ENOSPC, E2BIG) or memory."""
        self._key[:] = key
        self._value[:] = value
        if _libc.syscall(self._number, MAP_UPDATE, self._attribute, OF_ELEMENT.size) < 0:
            error = ctypes.get_errno()
            raise BpfError(error, f"writing the map {self.name}: {os.strerror(error)}")

    def delete(self, key: bytes) -> None:
        """Remove an element; one that is not there is no error."""
        self._key[:] = key
        _libc.syscall(self._number, MAP_DELETE, self._attribute, OF_ELEMENT.size)

    def memory(self) -> mmap.mmap:
        """The values of an array that was made mmapable, shared with the program."""
        return mmap.mmap(self.fd, self.entries * self.value_bytes)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def load_classifier(name: str, code: bytes, terms: str) -> int:
    """Load a program for tc and tcx; gives its descriptor.

    :raises BpfError: with the last lines of the verifier, where it was the verifier.
    """
    instructions, license_text = bytearray(code), bytearray(terms.encode() + b"\0")
    log = bytearray(LOG_BYTES)

    def attribute(level: int) -> bytes:
        return OF_PROGRAM.pack(
            CLASSIFIER,
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
            0,
        )

    what = f"loading the program {name}"
    try:
        return call(PROGRAM_LOAD, what, attribute(0))
    except BpfError as error:
        if error.errno not in {errno.EINVAL, errno.EACCES}:
            raise
    try:  # once more, for the verifier's words
        return call(PROGRAM_LOAD, what, attribute(1))
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
