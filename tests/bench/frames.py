"""``python -m tests.bench.frames``: what a packet costs in the driver (XDP).

Frames are put into a veth as a driver gives them, by a redirect; the relay's program runs at its
far end and hands them to the next veth, where they are dropped. What counts is what that takes more
than when they are dropped where they come in. One processor does all of it.
"""

import argparse
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.turn.kernel import frames
from tests.turn.kernel.hosts import Host, Network, be_driver_like, network, offloads, relay
from tests.turn.kernel.script import Stage, body, channel_data
from turn.kernel import bpf

BATCH = 64
MOST_LOST = 0.001
SIZES = (172, 1200)
HEAD = 48
"""Bytes of a frame that are written anew each time: frames are used again, as they were left."""
# <linux/bpf.h>: opcodes, bpf_redirect(), XDP_DROP.
MOVE, CALL, EXIT, REDIRECT, DROP = 0xB7, 0x85, 0x95, 23, 1
LOAD_WORD, COPY, ADD, IF_GREATER, LOAD_LONG, STORE_LONG = 0x61, 0xBF, 0x07, 0x2D, 0x18, 0x7B


class Injector:
    """Puts a frame into a host's device as its driver would, again and again."""

    def __init__(self, host: Host, frame: bytes) -> None:
        self._host, self._frame = host, frame
        with host.inside():
            self._device = socket.if_nametoindex(host.device)
        self._program = program(*writing(frame[:HEAD]), *sending(self._device))

    def nanoseconds(self, count: int) -> float:
        """How long it takes until a frame is where it ends."""
        with self._host.inside():
            start = time.process_time_ns()
            bpf.run_live(self._program, self._frame, self._device, count, BATCH)
            return (time.process_time_ns() - start) / count


def instruction(opcode: int, to: int = 0, of: int = 0, offset: int = 0, number: int = 0) -> bytes:
    """A BPF instruction: registers, offset, constant."""
    return struct.pack("=BBhi", opcode, of << 4 | to, offset, number)


def writing(head: bytes) -> list[bytes]:
    """Write the beginning of a frame."""
    words = [head[at : at + 8] for at in range(0, len(head), 8)]
    code = [
        instruction(LOAD_WORD, to=6, of=1, offset=0),  # data, data_end
        instruction(LOAD_WORD, to=7, of=1, offset=4),
        instruction(COPY, to=2, of=6),
        instruction(ADD, to=2, number=len(head)),
        instruction(IF_GREATER, to=2, of=7, offset=3 * len(words)),
    ]
    for index, word in enumerate(words):
        low, high = struct.unpack("=ii", word)
        code += [instruction(LOAD_LONG, to=2, number=low), instruction(0, number=high)]
        code.append(instruction(STORE_LONG, to=6, of=2, offset=8 * index))
    return code


def sending(device: int) -> list[bytes]:
    """Send a frame by a device."""
    return [
        instruction(MOVE, to=1, number=device),
        instruction(MOVE, to=2),
        instruction(CALL, number=REDIRECT),
        instruction(EXIT),
    ]


def program(*code: bytes) -> int:
    """Load a program for XDP."""
    return bpf.load_program(bpf.XDP, "bench", b"".join(code), "Apache-2.0")


@contextmanager
def dropped_at(host: Host) -> Iterator[None]:
    """Have frames end at a host's device."""
    dropping = program(instruction(MOVE, number=DROP), instruction(EXIT))
    with host.inside():
        link = bpf.attach_xdp(dropping, socket.if_nametoindex(host.device))
    try:
        yield
    finally:
        os.close(link)
        os.close(dropping)


def alone(found: Network, frame: bytes, count: int) -> float:
    """Nanoseconds of a frame that is dropped where it comes in."""
    with dropped_at(found.server):
        return Injector(found.client, frame).nanoseconds(count)


def through(found: Network, size: int, count: int) -> tuple[float, float]:
    """Nanoseconds of a packet that is relayed to the peer, and of one that is not."""
    with relay(found, "kernel", kernel_hook="xdp") as running:
        stage = Stage(found, running)
        try:
            stage.warm_up()
            wire = stage.from_client
            frame = frames.ip(wire, frames.udp(wire, channel_data(body(size))))
            with dropped_at(found.peer):
                injector = Injector(found.client, frame)
                injector.nanoseconds(count // 10)
                before = stage.by_xdp()
                relayed = injector.nanoseconds(count)
                carried = stage.by_xdp() - before
        finally:
            stage.close()
    if carried < count * (1 - MOST_LOST):
        sys.exit(f"of {count} frames {carried} were relayed")
    return relayed, alone(found, frame, count)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.frames", description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--frames", type=int, default=1_000_000)
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("this makes network namespaces, and that needs root")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("in the driver (XDP), client to peer; medians of", options.turns, "turns\n")
    with network() as found:
        be_driver_like(found)
        offloads(found, client=False, segmentation=False)
        for size in SIZES:
            turns = [through(found, size, options.frames) for _ in range(options.turns)]
            costs = [relayed - other for relayed, other in turns]
            cost = statistics.median(costs)
            whole = statistics.median(relayed for relayed, _ in turns)
            print(
                f"ChannelData, {size} bytes: {cost:.0f} ns a packet "
                f"({min(costs):.0f}-{max(costs):.0f}), {1e3 / cost:.1f} million a second and core; "
                f"with what brings and takes the frames {whole:.0f} ns, {1e3 / whole:.1f} million"
            )


if __name__ == "__main__":
    main()
