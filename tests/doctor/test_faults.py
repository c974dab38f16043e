"""The doctor finds each planted fault, at our relay and at coturn, and finds the right words."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any

import pytest

from tests.doctor.lab import Lab, lab, need_lab
from tests.doctor.plants import PLANTS, SERVERS, Plant, examined, tell
from turn.doctor.report import Section, Status

AT_ONCE = 6
"""Faults that are looked for at the same time: mostly the doctor waits for what will not come."""
Found = dict[tuple[str, str], "Future[Section]"]
"""By the fault's name and its server."""


def rows() -> list[Any]:
    found = []
    for plant in PLANTS:
        servers = [name for name in SERVERS if getattr(plant, name) is not None] or ["nobody"]
        found += [pytest.param(plant, name, id=f"{plant.name} ({name})") for name in servers]
    return found


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Found]:
    """What becomes of each fault that is asked for, in a lab that no other one has meanwhile."""
    need_lab()
    labs: SimpleQueue[Lab] = SimpleQueue()

    def look(plant: Plant, server: str) -> Section:
        hosts = labs.get()
        try:
            return examined(hosts, tmp_path_factory.mktemp("plant"), plant, server)
        finally:
            hosts.open_firewall()
            labs.put(hosts)

    asked: list[Any] = [
        item.callspec.params
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_a_fault_is_found
    ]
    with ExitStack() as stack:
        for _ in range(AT_ONCE):
            labs.put(stack.enter_context(lab()))
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        stack.callback(pool.shutdown, cancel_futures=True)
        yield {(it["plant"].name, it["server"]): pool.submit(look, **it) for it in asked}


@pytest.mark.parametrize(("plant", "server"), rows())
def test_a_fault_is_found(found: Found, plant: Plant, server: str) -> None:
    section = found[plant.name, server].result()
    check, status, words = plant.found
    meant = [one for one in section.findings if (one.check, one.status) == (check, status)]
    assert meant, tell(section)
    assert any(words in one.says and plant.then in one.next for one in meant), tell(section)
    # Nothing else is blamed: what a fault hides is left out, or said to be its consequence.
    others = [one for one in section.of(Status.FAIL) if one not in meant]
    assert {one.check for one in others} <= {"loss", "ice"}, tell(section)
