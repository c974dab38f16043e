"""Processes that a test may kill, put to sleep and wake."""

import signal
import subprocess


class Signalled:
    """One of them, once it was started."""

    _process: "subprocess.Popen[bytes] | None" = None

    def sleep(self) -> None:
        """Have it do nothing, with all connections open."""
        self.signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Have it go on where it was."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)
