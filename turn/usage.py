"""Who had which relayed address, when, and what it carried: a line of the log for each.

Operators who answer for what leaves their addresses ask for it (``log.allocations``).
"""

import logging

import structlog

from config.log import ALLOCATIONS
from turn.telling import Tell, Told, facts_of

LINES = {"allocation_created": "allocation begins", "allocation_closed": "allocation ends"}

log = structlog.get_logger(ALLOCATIONS)
switch = logging.getLogger(ALLOCATIONS)


def logged(tell: Tell) -> Tell:
    """Have what is told of allocations stand in the log too, while an operator wants it there."""

    def also(kind: str, told: Told) -> None:
        if kind in LINES and switch.isEnabledFor(logging.INFO):
            told = facts_of(told)
            log.info(LINES[kind], **told)
        tell(kind, told)

    return also
