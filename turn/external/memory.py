"""What was found, on disk: a relay that is restarted while no STUN server answers still knows it.

A file of one JSON object: local -> external address.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec
import structlog

from turn.journal import read_own, write_own

log = structlog.get_logger("turn")


class Memory:
    """The file, or nothing where the relay has no ``state_directory``."""

    def __init__(self, folder: str) -> None:
        """Name it; nothing is touched. :param folder: "" for none."""
        self._file = Path(folder) / "external" if folder else None

    def load(self) -> dict[str, str]:
        """What the last process knew, if it can be read; else the servers will tell it again."""
        if self._file is None:
            return {}
        try:
            found = msgspec.json.decode(read_own(self._file), type=dict[str, str])
            return {str(ip_address(host)): str(ip_address(found[host])) for host in found}
        except (OSError, ValueError):  # also what msgspec cannot decode
            return {}

    def save(self, found: Mapping[str, str]) -> None:
        """Put it down for the next process."""
        if self._file is None:
            return
        try:
            write_own(self._file, msgspec.json.encode(dict(found)))
        except OSError as error:
            log.warning("the external address is not recorded: it is not known after a restart",
                        file=str(self._file), reason=error.strerror)  # fmt: skip
