"""Which worker a datagram goes to, and into which of its two queues: one program for a group.

As for a single process (``turn.transport.queues``), what has a route does not wait behind what has
to be decided. A client is one worker's whatever it sends, so the program hashes where it comes
from. The hash is another one on every machine, so that nobody can choose a worker to flood, and
the same after a restart, since calls outlive that.
"""

import hashlib
import socket
from collections.abc import Sequence
from pathlib import Path

from turn.transport.queues import (
    IF_AT_LEAST,
    IF_EQUAL,
    LOAD_BYTE,
    LOAD_HALF,
    SEND_INDICATION,
    Step,
    attach,
    queue_beside,
)

# Classic BPF, the rest of it (<linux/bpf_common.h>): A is the accumulator, X the index register.
LOAD_WORD, LOAD_HALF_AT_X, LOAD_WORD_KEPT, KEEP_A = 0x20, 0x48, 0x60, 0x02
X_IS_HEADER_BYTES, X_IS, X_IS_A = 0xB1, 0x01, 0x07
ADD, MULTIPLY, MODULO, SHIFT_RIGHT, XOR_X = 0x04, 0x24, 0x94, 0x74, 0xAC
RETURN_A = 0x16
NETWORK = 0xFFF00000
"""Added to an offset: from the IP header on (SKF_NET_OFF)."""
IPV4_SOURCE, IPV6_SOURCE, IPV6_HEADER_BYTES = 12, 8, 40
BOOT = Path("/proc/sys/kernel/random/boot_id")


def divide(members: Sequence[socket.socket]) -> list[socket.socket]:
    """A second socket for each of a group, in order, which gets what is not data.

    Empty where the kernel does not have it: then it divides the clients by a hash of its own, and
    each worker has one queue.
    """
    made: list[socket.socket] = []
    try:
        # The numbers of sockets that are not there yet do no harm: the kernel hashes then.
        attach(members[0], program(len(members), is_ipv6=members[0].family == socket.AF_INET6))
        for member in members:
            made.append(queue_beside(member))  # noqa: PERF401 - those made so far are closed
    except OSError:
        for each in made:
            each.close()
        return []
    return made


def program(workers: int, *, is_ipv6: bool) -> list[Step]:
    """Gives a worker's number for data, and as much more as there are workers for the rest."""
    port, address = odd_numbers()
    return [
        *(_ipv6_client(port) if is_ipv6 else _ipv4_client(port)),
        (MULTIPLY, 0, 0, address),
        (SHIFT_RIGHT, 0, 0, 16),
        (MODULO, 0, 0, workers),
        (KEEP_A, 0, 0, 0),
        # As SORT of ``queues``.
        (LOAD_BYTE, 0, 0, 0),
        (IF_AT_LEAST, 5, 0, 0x40),
        (LOAD_HALF, 0, 0, 0),
        (IF_EQUAL, 3, 0, SEND_INDICATION),
        (LOAD_WORD_KEPT, 0, 0, 0),
        (ADD, 0, 0, workers),
        (RETURN_A, 0, 0, 0),
        (LOAD_WORD_KEPT, 0, 0, 0),
        (RETURN_A, 0, 0, 0),
    ]


def _ipv4_client(port: int) -> list[Step]:
    """A = address ^ port * odd number; the UDP header is behind an IP header of any length."""
    return [
        (X_IS_HEADER_BYTES, 0, 0, NETWORK),
        (LOAD_HALF_AT_X, 0, 0, NETWORK),
        (MULTIPLY, 0, 0, port),
        (X_IS_A, 0, 0, 0),
        (LOAD_WORD, 0, 0, NETWORK + IPV4_SOURCE),
        (XOR_X, 0, 0, 0),
    ]


def _ipv6_client(port: int) -> list[Step]:
    """The same of an IPv6 address's four words. Behind extension headers, which no client sends,
    what is taken for the port is some of theirs.
    """
    steps: list[Step] = [
        (X_IS, 0, 0, IPV6_HEADER_BYTES),
        (LOAD_HALF_AT_X, 0, 0, NETWORK),
        (MULTIPLY, 0, 0, port),
    ]
    for word in range(4):
        load = (LOAD_WORD, 0, 0, NETWORK + IPV6_SOURCE + 4 * word)
        steps += [(X_IS_A, 0, 0, 0), load, (XOR_X, 0, 0, 0)]
    return steps


def odd_numbers() -> tuple[int, int]:
    """What a port and then the whole is multiplied by, until this machine starts anew."""
    boot = BOOT.read_bytes() if BOOT.exists() else b""
    digest = hashlib.sha256(b"icebroker workers" + boot).digest()
    return int.from_bytes(digest[:4]) | 1, int.from_bytes(digest[4:8]) | 1
