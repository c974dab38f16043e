"""Run a command that may not call bpf(2), as in a container with a seccomp profile.

python -m tests.turn.kernel.without_bpf ERRNO COMMAND…: what the call gives, as EPERM.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

from turn.kernel.bpf import SYSTEM_CALL

NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2
"""prctl(2)."""
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
REFUSE, ALLOW = 0x00050000, 0x7FFF0000
INSTRUCTION = struct.Struct("HBBI")
"""What to do, where to go on if so and if not, a number (linux/filter.h)."""


def refuse(number: int, error: int) -> None:
    """Have a system call fail from now on, here and in whatever this becomes."""
    steps = (
        (LOAD, 0, 0, 0), (IF_EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | error),
        (RETURN, 0, 0, ALLOW),
    )  # fmt: skip
    program = ctypes.create_string_buffer(b"".join(INSTRUCTION.pack(*step) for step in steps))
    named = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(program)))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    for what in ((NO_NEW_PRIVS, 1, 0, 0, 0), (SECCOMP, FILTER, ctypes.addressof(named), 0, 0)):
        if prctl(*what):
            raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    refuse(SYSTEM_CALL[platform.machine()], getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
