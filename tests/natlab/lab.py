"""Calls between two networks, and what both ends and the server say of each."""

import queue
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from tests.natlab.internet import Internet, Site, certificate_of_the_server, internet
from tests.natlab.networks import LAN, TRANSPORTS, Kind, expected
from tests.natlab.peers import CONNECTED_WITHIN, MESSAGE, Aiortc, End, Page, Peer, on
from tests.patience import PATIENCE

MESSAGES = 100
"""That each end sends to the other."""


class Cell(NamedTuple):
    """A pair of networks, and the clients in them."""

    one: Kind
    other: Kind
    clients: tuple[str, str] = ("aiortc", "aiortc")

    def __str__(self) -> str:
        first, second = self.clients
        return f"{self.one.name} ({first}) - {self.other.name} ({second})"


class Call(NamedTuple):
    """What was seen."""

    one: End
    other: End
    seconds: float
    """From joining the room until data could flow both ways."""
    stun: int
    """Requests that came to the server."""
    allocations: dict[str, int]
    """Allocations that were made, by the transport to the relay."""
    relayed: dict[str, int]
    """Bytes that the server relayed while ``MESSAGES`` went both ways, by data plane."""


def call(lab: Internet, cell: Cell, room: str) -> Call:
    """Have two hosts call each other."""
    with ExitStack() as stack:
        if cell.one is LAN:
            sites = stack.enter_context(lab.site(LAN, hosts=2))
        else:
            kinds = (cell.one, cell.other)
            sites = [stack.enter_context(lab.site(kind))[0] for kind in kinds]
        ends = [
            stack.enter_context(on(site, _peer(lab, site, client)))
            for site, client in zip(sites, cell.clients, strict=True)
        ]
        both(ends, lambda end: end.arrive())
        before = lab.metrics()
        both(ends, lambda end: end.join(room))
        seconds = both(ends, lambda end: end.connected())
        agreed(ends)
        quiet = lab.metrics()
        both(ends, lambda end: end.send(MESSAGES))
        both(ends, lambda end: end.received(MESSAGES))
        after = lab.metrics()
        return Call(
            *agreed(ends),
            max(seconds),
            sum(grown(before, after, "stun_requests_total", "method").values()),
            grown(before, after, "turn_allocations_created_total", "transport"),
            grown(quiet, after, "turn_relay_bytes_total", "plane"),
        )


def check(cell: Cell, seen: Call) -> None:
    """See that the path is the one that must win, by the word of both ends and of the server."""
    must = expected(cell.one, cell.other)
    assert seen.one.via in must.one, seen
    assert seen.other.via in must.other, seen
    for end in (seen.one, seen.other):
        assert end.relayed == must.relayed, seen
        if end.via != "direct":
            assert seen.allocations[end.via] >= 1, seen
    # The server carried all of it, or none.
    payload = 2 * MESSAGES * len(MESSAGE)
    relayed = sum(seen.relayed.values())
    assert relayed >= payload if must.relayed else relayed < payload / 10, seen
    if cell.one is LAN:
        assert seen.stun == 0, seen
    # And nothing came by a way that neither network has.
    if "udp" not in {cell.one.relay_by, cell.other.relay_by}:
        assert not seen.allocations["udp"], seen


def run(cells: Sequence[Cell], folder: Path, lanes: int) -> dict[Cell, Call | str]:
    """Run all, several at a time: each lane has an Internet and an Icebroker of its own.

    aiortc cannot be told whom to trust: see that ``SSL_CERT_FILE`` names ``folder/cert.pem``.

    :returns: what was seen in each cell, or why nothing was.
    """
    waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in cells:
        waiting.put(cell)
    results: dict[Cell, Call | str] = dict.fromkeys(cells, "not run")
    certificate = certificate_of_the_server(folder)
    with ThreadPoolExecutor(lanes) as pool:
        running = [
            pool.submit(_lane, folder / f"lane{number}", certificate, waiting, results)
            for number in range(lanes)
        ]
    for lane in running:
        lane.result()  # or why there was no Internet
    return results


def _lane(
    folder: Path,
    certificate: tuple[Path, Path],
    waiting: "queue.SimpleQueue[Cell]",
    results: dict[Cell, Call | str],
) -> None:
    folder.mkdir()
    with internet(folder, *certificate) as lab:
        while True:
            try:
                cell = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                results[cell] = call(lab, cell, room=str(cell))
            except Exception:  # noqa: BLE001 - told by the test of this cell
                results[cell] = traceback.format_exc()


def table(results: dict[Cell, Call | str]) -> str:
    """The cells, line by line: the pair, the path that won, the time to connect."""
    rows = [("pair", "path that won", "carried by", "time to connect")]
    for cell, seen in results.items():
        if isinstance(seen, str):
            rows.append((str(cell), "NONE", "", seen.strip().rpartition("\n")[2]))
            continue
        ways = (seen.one.via, seen.other.via)
        planes = " and ".join(plane for plane, size in seen.relayed.items() if size > len(MESSAGE))
        rows.append((str(cell), _path(ways), planes, f"{seen.seconds:.1f} s"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _path(ways: tuple[str, str]) -> str:
    relays = sorted(set(ways) - {"direct"}, key=TRANSPORTS.index)
    if not relays:
        return "direct"
    return f"relay by {' and '.join(way.upper() for way in relays)}"


def grown(
    before: dict[str, float], after: dict[str, float], metric: str, label: str
) -> dict[str, int]:
    """How much a counter has grown, by the values of one of its labels."""
    growth: Counter[str] = Counter()
    for name, value in after.items():
        if name.startswith(f"icebroker_{metric}{{"):
            growth[name.split(f'{label}="')[1].split('"')[0]] += int(value - before.get(name, 0))
    return dict(growth)


def _peer(lab: Internet, site: Site, client: str) -> Peer:
    return Page(site) if client == "chromium" else Aiortc(lab, site)


def agreed(ends: list[Any]) -> tuple[End, End]:
    """Their paths, once both are relayed or both direct.

    Of two relays that ICE ranks alike, Chromium may go on sending by the one and receiving by
    the other.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        one, other = both(ends, lambda end: end.end())
        if one.relayed == other.relayed or time.monotonic() > deadline:
            return one, other
        time.sleep(0.1)


def both(ends: list[Any], what: Callable[[Any], Any]) -> list[Any]:
    """Have both do something at the same time; what it gives."""
    return [future.result(CONNECTED_WITHIN + 5) for future in [what(end) for end in ends]]
