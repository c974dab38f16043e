"""The loader as a process of its own: it has the rights, so that the relay needs none.

It loads the program, pins it with its maps, and attaches it where devices come. It reads nothing
from the network but rtnetlink's news.
"""

import asyncio
import errno
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog

from turn.kernel.loader import Loader, explained
from turn.kernel.pins import Pins, Taken, is_bpffs
from turn.kernel.rtnetlink import Netlink, News
from turn.kernel.xdp import Hook

log = structlog.get_logger("turn")

SETTLE = 0.2
"""Seconds to wait after a change of devices: they come in groups."""
RETRY = 2.0
"""Seconds until the next try where no device would have the program."""


class LoaderError(Exception):
    """The program cannot be loaded, pinned or lent; the message says why."""


def lend(directory: Path, user: int) -> None:
    """Let a user write the routes of the program that another process has pinned.

    :raises LoaderError: there is none, or it cannot be lent.
    """
    nothing = f"no kernel program is loaded at {directory}: relays go on in user space"
    if not is_bpffs(directory):
        raise LoaderError(nothing)
    try:
        Pins(directory).lend(user)
    except FileNotFoundError:
        raise LoaderError(nothing) from None
    except OSError as error:
        raise LoaderError(f"cannot lend {directory}: {error.strerror or error}") from None


class LoaderService:
    """Keeps the program where it should be."""

    def __init__(self, directory: Path, hook: Hook = "auto", user: int | None = None) -> None:
        """Load and pin it, or go on with what is pinned.

        :param hook: where it may carry packets.
        :param user: who may write its routes, beside root.
        :raises LoaderError: the kernel refused, or another process does it already.
        """
        with ExitStack() as undo:
            try:
                self._netlink = Netlink()
                undo.callback(self._netlink.close)
                self._news = News()
                undo.callback(self._news.close)
                self._loader = Loader(self._netlink, hook, Pins(directory))
                if user is not None:
                    self._loader.lend(user)
            except Taken:
                raise LoaderError(f"another process keeps the program at {directory}") from None
            except OSError as error:
                raise LoaderError(explained(error)) from None
            self._undo = undo.pop_all()
        self._timer: asyncio.TimerHandle | None = None
        self._told: list[str] = []

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Follow the devices until a signal: SIGUSR1 leaves everything at work, others end it.

        :param ready: called once a relay can be lent the program.
        """
        loop = asyncio.get_running_loop()
        signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            loop.add_signal_handler(number, signals.put_nowait, number)
        loop.add_reader(self._news.sock, self._heard)
        self._follow()
        ready()
        leaving = await signals.get() is signal.SIGUSR1
        loop.remove_reader(self._news.sock)
        if self._timer:
            self._timer.cancel()
        if leaving:
            self._loader.leave()
        else:
            self._loader.close()
        self._undo.close()

    def _heard(self) -> None:
        _, other = self._news.read()
        if other and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE, self._follow)

    def _follow(self) -> None:
        self._timer = None
        try:
            self._loader.follow(self._netlink.links(), self._netlink.addressed())
        except OSError as error:
            # No device has an address yet, or none will have the program: neither lasts for ever.
            if error.errno != errno.ENODEV:
                log.warning("attached nowhere", reason=error.strerror)
            self._timer = asyncio.get_running_loop().call_later(RETRY, self._follow)
        if self._loader.names != self._told:
            self._told = self._loader.names
            log.info("attached", devices=self._told)
