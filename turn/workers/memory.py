"""The memory that all workers share: anonymous, handed on as a descriptor, gone with the last one.

```
rows       SLOTS rows of the ledger          key 16 bytes, two float64, a uint32 for each worker
replies    CELLS float64                     see transport.limits.ReplyLimit
bindings   CELLS float64
handshakes CELLS float64
strangers  a uint16 for each worker and place, worker by worker
```
Pages that nobody has written to cost nothing.
"""

import mmap
import os

from turn.transport.limits import CELLS, Cells

SLOTS = 1 << 18
"""Rows. What they count is bounded by the allocations there can be: ports of relay addresses."""
KEY_BYTES = 16
HEAD_BYTES = KEY_BYTES + 16
LIMITS = 3
"""Rate limits that have cells."""
PLACES = 1 << 16
"""Of connections without proof. Two sources share one with a chance of 1 in 65,536."""


class Memory:
    """The shared pages, as this process sees them."""

    def __init__(self, descriptor: int, workers: int) -> None:
        """Map it. The descriptor is ours from now on."""
        self.descriptor = descriptor
        self.workers = workers
        self.row_bytes = HEAD_BYTES + -(-4 * workers // 8) * 8
        self.pages = mmap.mmap(descriptor, _size(self.row_bytes, workers))
        """The rows are at its beginning."""
        view = memoryview(self.pages)
        start = SLOTS * self.row_bytes
        self.times = view[:start].cast("d")
        """The rows, by eights of bytes."""
        end = start + 8 * CELLS * LIMITS
        self._cells = view[start:end].cast("d")
        self.strangers = view[end:].cast("H")

    @classmethod
    def create(cls, workers: int) -> "Memory":
        """Fresh memory, all zeros."""
        descriptor = os.memfd_create("icebroker-workers", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _size(HEAD_BYTES + -(-4 * workers // 8) * 8, workers))
        return cls(descriptor, workers)

    def cells(self, salt: int) -> tuple[Cells, Cells, Cells]:
        """What the limits on replies, on Binding responses and on TLS handshakes write to."""
        first, second, third = (self._cells[n * CELLS : (n + 1) * CELLS] for n in range(LIMITS))
        return Cells(first, salt), Cells(second, salt), Cells(third, salt)

    def close(self) -> None:
        """Let go of it; the views that others made of it end with them."""
        os.close(self.descriptor)


def _size(row_bytes: int, workers: int) -> int:
    return SLOTS * row_bytes + 8 * CELLS * LIMITS + 2 * PLACES * workers
