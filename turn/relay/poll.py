"""One epoll for every UDP socket of the relay, hung into the event loop as a single descriptor.

asyncio spends more on waking a callback than the kernel on a packet; here one wake-up of the loop
serves hundreds of sockets, and never more packets than leave room for requests and timers.
"""

import asyncio
import select
import socket
import time
from collections.abc import Callable

MOST_EVENTS = 64
"""Sockets that one look at the epoll names at a time."""
PACKETS_PER_WAKEUP = 512
"""Then the event loop gets its turn: about 3 ms, so a flood never starves anything else."""

Reader = Callable[[int, float], int]
"""Reads some packets of a descriptor, at most a few dozen, without waiting; gives how many.
They are held to a monotonic time: to ask for it would cost each as much as its lookup."""


class Poller:
    """Calls a socket's reader when packets wait there."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: list[Reader | None] = []
        """By descriptor: they are small numbers, and a list is less to touch than a dict."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to serve."""
        loop.add_reader(self._epoll.fileno(), self._serve)

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop serving; the sockets are their owners' to close."""
        loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def add(self, sock: socket.socket, reader: Reader) -> None:
        """Watch a socket."""
        descriptor, readers = sock.fileno(), self._readers
        readers.extend([None] * (descriptor + 1 - len(readers)))
        readers[descriptor] = reader
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, sock: socket.socket) -> None:
        """Stop watching a socket that is about to be closed."""
        descriptor = sock.fileno()
        if 0 <= descriptor < len(self._readers) and self._readers[descriptor] is not None:
            self._readers[descriptor] = None
            self._epoll.unregister(descriptor)

    def _serve(self) -> None:
        poll, readers = self._epoll.poll, self._readers
        budget = PACKETS_PER_WAKEUP
        while budget > 0:
            events = poll(0, MOST_EVENTS)
            if not events:
                return
            now = time.monotonic()
            for descriptor, _ in events:
                # A reader may close another's socket (an allocation that ends), so look it up.
                reader = readers[descriptor]
                if reader is not None:
                    budget -= reader(descriptor, now) or 1
