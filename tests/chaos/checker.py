"""Reads what clients wrote down and says which promise was broken; knows nothing of the server.

A log has one line for each thing that a client saw or did, in its own order. Peers are known by
their ids alone, and a client has a new one after each ``restarted``.
"""

from collections import defaultdict
from typing import Literal, NamedTuple

What = Literal["began", "roster", "sent", "got", "join", "leave", "suspended", "resumed", "ended"]


class Line(NamedTuple):
    """One line of a log."""

    what: What
    peer: str = ""
    """began: the client's own; roster, presence: of whom; sent: to whom; got: from whom."""
    sender: str = ""
    """sent, got: the client's name, as it wrote it into the message."""
    number: int = 0
    """sent, got: which message of this sender."""


Logs = dict[str, list[Line]]
"""By the client's name."""


def complaints(logs: Logs) -> list[str]:
    """Every broken promise, as a sentence; empty: all were kept."""
    owners = {line.peer: name for name, log in logs.items() for line in log if line.what == "began"}
    return [
        *_forged(logs, owners),
        *_doubled_or_disordered(logs),
        *_lost(logs, owners),
        *(text for name, log in logs.items() for text in _presence(name, log)),
    ]


def _forged(logs: Logs, owners: dict[str, str]) -> list[str]:
    """``from`` is always the one who sent it."""
    return [
        f"{name} got {line.number} of {line.sender} as from {owners.get(line.peer)}"
        for name, log in logs.items()
        for line in log
        if line.what == "got" and owners.get(line.peer) != line.sender
    ]


def _doubled_or_disordered(logs: Logs) -> list[str]:
    """What one client sends another arrives once, and in its order."""
    found = []
    for name, log in logs.items():
        last: dict[str, int] = defaultdict(lambda: -1)
        for line in log:
            if line.what == "got":
                if line.number <= last[line.sender]:
                    found.append(
                        f"{name} got {line.number} of {line.sender} after {last[line.sender]}"
                    )
                last[line.sender] = max(last[line.sender], line.number)
    return found


def _lost(logs: Logs, owners: dict[str, str]) -> list[str]:
    """What was acknowledged has arrived, or the recipient was told that its session is over."""
    last_peer = {
        name: [line.peer for line in log if line.what == "began"][-1] for name, log in logs.items()
    }
    arrived = {
        (name, line.sender, line.number)
        for name, log in logs.items()
        for line in log
        if line.what == "got"
    }
    return [
        f"{owner} never got {line.number} of {name}, which was acknowledged"
        for name, log in logs.items()
        for line in log
        if line.what == "sent"
        and (owner := owners.get(line.peer)) is not None
        and last_peer[owner] == line.peer
        and logs[owner][-1].what != "ended"
        and (owner, line.sender, line.number) not in arrived
    ]


def _presence(name: str, log: list[Line]) -> list[str]:
    """Presence is a story that makes sense: one join, one leave, nothing after it."""
    found = []
    state: dict[str, str] = {}
    for line in log:
        before = state.get(line.peer, "away")
        if line.what == "began":
            state.clear()  # told that all is new
        elif line.what == "roster":
            if before == "left":
                found.append(f"{name} has {line.peer} in a roster after its leave")
            state[line.peer] = "here"
        elif line.what == "join":
            if before != "away":
                found.append(f"{name} heard join of {line.peer}, which was {before}")
            state[line.peer] = "here"
        elif line.what in {"suspended", "resumed", "leave"}:
            if before != "here":
                found.append(f"{name} heard {line.what} of {line.peer}, which was {before}")
            if line.what == "leave":
                state[line.peer] = "left"
    return found


def present(log: list[Line]) -> set[str]:
    """Whom a client believes to be there at the end of its log."""
    found: set[str] = set()
    for line in log:
        if line.what == "began":
            found.clear()
        elif line.what in {"roster", "join"}:
            found.add(line.peer)
        elif line.what == "leave":
            found.discard(line.peer)
    return found
