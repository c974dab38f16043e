"""A process that may open no more files."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def none_left(pid: int | None = None) -> Iterator[None]:
    """Let a process open nothing any more; what it has open stays. :param pid: None: this one."""
    pid = pid or os.getpid()
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    if pid == os.getpid():  # to list them took one
        used = {number for number in used if _is_open(number)}
    # Numbers are given from below; behind the lowest free one nothing is to be had.
    lowest = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
