"""The same packets through both planes: equal verdicts, equal bytes, checksums that are right."""

from typing import NamedTuple

import pytest

from tests.turn.kernel.hosts import Network, offloads, relay
from tests.turn.kernel.indications import IndicationStage, of_indications
from tests.turn.kernel.script import (
    IPV4_ONLY,
    IPV6_ONLY,
    Case,
    Stage,
    of_both_families,
    spoiled,
)


class Played(NamedTuple):
    """What became of a case."""

    delivered: object
    """What reached the peer and the client."""
    carried: int
    """Packets that the kernel carried."""
    by_xdp: int
    """Those of them that never had a socket buffer."""


def play(
    found: Network, plane: str, cases: list[Case], kind: type[Stage], *, ipv6: bool, hook: str
) -> dict[str, Played]:
    """What became of each case, by name."""
    with relay(found, plane, kernel_hook=hook) as running:
        stage = kind(found, running, ipv6=ipv6)
        try:
            stage.warm_up()
            results: dict[str, Played] = {}
            for case in cases:
                before, frames = stage.carried(), stage.by_xdp() if plane == "kernel" else 0
                case.play(stage)
                delivered, carried = stage.collect(), stage.carried() - before
                by_xdp = stage.by_xdp() - frames if plane == "kernel" else 0
                results[case.name] = Played(delivered, carried, by_xdp)
            return results
        finally:
            stage.close()


def compare(
    found: Network, cases: list[Case], kind: type[Stage], *, ipv6: bool, hook: str = "tc"
) -> dict[str, Played]:
    """Play all cases to both planes; gives what the kernel's did."""
    assert len({case.name for case in cases}) == len(cases)
    expected = play(found, "userspace", cases, kind, ipv6=ipv6, hook=hook)
    got = play(found, "kernel", cases, kind, ipv6=ipv6, hook=hook)
    for case in cases:
        assert got[case.name].delivered == expected[case.name].delivered, case.name
    shares = {case.name: got[case.name].carried for case in cases}
    assert shares == {case.name: case.carried for case in cases}
    assert not any(played.carried for played in expected.values())
    return got


FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
CHECKSUMS = pytest.mark.parametrize(
    "partial", [False, True], ids=["whole checksums", "partial checksums"]
)


@FAMILIES
@CHECKSUMS
def test_both_planes_do_the_same(three: Network, ipv6: bool, partial: bool):
    offloads(three, client=partial, segmentation=partial)
    cases = of_both_families(40 if ipv6 else 20, segmentation=partial)
    cases += (IPV6_ONLY if ipv6 else IPV4_ONLY) + spoiled(ipv6=ipv6)
    compare(three, cases, Stage, ipv6=ipv6)


@FAMILIES
@CHECKSUMS
def test_both_planes_do_the_same_to_indications(three: Network, ipv6: bool, partial: bool):
    offloads(three, client=partial, segmentation=partial)
    compare(three, of_indications(ipv6=ipv6), IndicationStage, ipv6=ipv6)
