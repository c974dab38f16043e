"""Hosts on one machine: network namespaces, the cables between them, and how to be inside one.

A namespace belongs to a thread. A thread that is ``inside`` opens its sockets there and starts its
programs there; both stay there for good.
"""

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
FAREWELL = 2.0
"""Seconds that connections have to close."""
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespaces(names: Iterable[str]) -> Iterator[None]:
    """Make them; they are gone again whatever happens. Needs root."""
    names = sorted(set(names))
    _remove(names)  # left by a run that was killed
    try:
        for name in names:
            run("ip", "netns", "add", name)
            # No wait for duplicate addresses: there are none here.
            ipv6 = {f"net/ipv6/conf/{scope}/accept_dad": "0" for scope in ("all", "default")}
            set_kernel(name, ipv6)
            ip(name, "link set lo up")
        yield
    finally:
        _remove(names)


def ip(namespace: str, *lines: str) -> None:
    """Run lines of ``ip`` in a namespace, all by one process."""
    run("ip", "-n", namespace, "-batch", "-", given="\n".join(lines))


def cable(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Join two namespaces: each end is a namespace and what the device is called in it."""
    (here, device), (there, far) = one, other
    run(
        "ip", "link", "add", device, "netns", here,
        "type", "veth", "peer", "name", far, "netns", there,
    )  # fmt: skip


def set_kernel(namespace: str, values: dict[str, str]) -> None:
    """Write into a namespace's ``/proc/sys``."""
    with inside(namespace):
        for key, value in values.items():
            Path("/proc/sys", key).write_text(value)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a namespace, this thread only."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)


@contextmanager
def looping(
    loop: asyncio.AbstractEventLoop | None = None,
) -> "Iterator[Callable[[Coroutine[Any, Any, Any]], Future[Any]]]":
    """Run an event loop in a thread of its own, which lives where this thread is now.

    Gives a function that runs a coroutine there; whatever still runs in the end is cancelled.
    """
    loop = loop or asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def start(work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, loop)

    async def cancel() -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                # TLS says goodbye before it closes, and nobody hands out a future of that.
                while _open_transports(loop):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    try:
        yield start
    finally:
        start(cancel()).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def run(*command: str, given: str | None = None) -> str:
    """Run a command; what it says. :raises RuntimeError: with its words."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _open_transports(loop: asyncio.AbstractEventLoop) -> bool:
    known = getattr(loop, "_transports", {}).values()
    return any(getattr(transport, "_sock", None) is not None for transport in list(known))


def _remove(names: Iterable[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
