"""Every pair of networks: the call connects, and by the path that must win."""

import itertools
import os
from collections.abc import Callable

import pytest
from aiortc import rtcicetransport

from tests.conftest import SHOWN, need, need_root
from tests.natlab.lab import Call, Cell, check, run, table
from tests.natlab.networks import IPV6, KINDS, LAN, NO_UDP, OPEN, PROXY, RESTRICTED, SYMMETRIC
from tests.natlab.peers import PatientConnection

pytestmark = pytest.mark.timeout(300)  # the first test waits for all cells
LANES = 4
PAGES = ("chromium", "chromium")
EVERYWHERE = (os.environ.get("NATLAB_CLIENT", "aiortc"),) * 2
"""Those of the whole matrix; browsers take three times as long, so that they have a part of it."""
ALL = (
    # Browsers first: they take longest.
    Cell(RESTRICTED, RESTRICTED, PAGES),
    Cell(SYMMETRIC, RESTRICTED, PAGES),
    Cell(NO_UDP, OPEN, PAGES),
    Cell(PROXY, RESTRICTED, PAGES),
    Cell(IPV6, SYMMETRIC, ("chromium", "aiortc")),
    Cell(LAN, LAN, PAGES),
    *(
        Cell(one, other, EVERYWHERE)
        for one, other in itertools.combinations_with_replacement(KINDS, 2)
    ),
    Cell(LAN, LAN),
)
CELLS = tuple(dict.fromkeys(ALL))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Call | str]:
    """What happened in each cell; they run several at a time."""
    need_root("the NAT laboratory")
    for program in ("ip", "nft", "chromium"):
        need(program)
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "certificate.pem"))
        patch.setattr(rtcicetransport, "Connection", PatientConnection)
        return run(CELLS, folder, LANES)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_best_path_wins(
    seen: dict[Cell, Call | str], cell: Cell, record_property: Callable[[str, str], None]
):
    if cell is CELLS[0]:
        record_property(SHOWN, table(seen))
    outcome = seen[cell]
    assert not isinstance(outcome, str), outcome
    check(cell, outcome)
