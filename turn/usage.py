"""Who had which relayed address, when, and what it carried: a line of the log for each.

Operators who answer for what leaves their addresses ask for it (``log.allocations``).
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from config.log import ALLOCATIONS
from turn.telling import Facts, Tell, Told, facts_of

LINES = {"allocation_created": "allocation begins", "allocation_closed": "allocation ends"}

log = structlog.get_logger(ALLOCATIONS)
switch = logging.getLogger(ALLOCATIONS)


def timed(tell: Tell, clock: Callable[[], float] = time.monotonic) -> Tell:
    """Have what ends say for how long it was there: the core knows since when, and no clock."""

    def seconds(told: Told) -> Facts:
        facts: dict[str, Any] = dict(facts_of(told))
        facts["seconds"] = round(clock() - facts.pop("since"), 3)
        return facts

    def also(kind: str, told: Told) -> None:
        tell(kind, partial(seconds, told) if kind == "allocation_closed" else told)

    return also


def logged(tell: Tell) -> Tell:
    """Have what is told of allocations stand in the log too, while an operator wants it there."""

    def also(kind: str, told: Told) -> None:
        if kind in LINES and switch.isEnabledFor(logging.INFO):
            told = facts_of(told)
            log.info(LINES[kind], **told)
        tell(kind, told)

    return also
