"""Where in a TOML text a setting stands: the line that an operator has to edit.

A statement of TOML (a header or a key with its value) ends at the first line end where the lines
since the one before it are valid TOML by themselves; so ``tomllib`` reads, and nothing here does.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

Location = tuple[int | str, ...]


class _Statement(NamedTuple):
    line: int
    """Its first line, from 1."""
    lines: list[str]
    content: dict[str, Any]
    """What it says, from the root of the document."""


def line_of(text: str, location: Location) -> int:
    """The line (from 1) of a valid TOML text that sets ``location`` or its nearest parent, or 0.

    :param location: keys, and indices of lists, as ``("turn", "allow_peers", 1)``.
    """
    best, best_depth = 0, 0
    for statement in _statements(text):
        depth = _depth(statement.content, location)
        if depth > best_depth:
            best, best_depth = statement.line + _element(statement, location), depth
    return best


def _statements(text: str) -> Iterator[_Statement]:
    """Each statement, placed in the table that the last header before it opened."""
    table: Location = ()
    entries: Counter[Location] = Counter()
    pending: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        pending.append(line)
        try:
            content = tomllib.loads("\n".join(pending))
        except tomllib.TOMLDecodeError:
            continue
        lines, pending = pending, []
        if lines[0].lstrip().startswith("["):
            table = _opened(content, entries)
            content = {}
        elif not content:
            continue  # a comment, or nothing
        yield _Statement(number - len(lines) + 1, lines, _nested(table, content))


def _opened(header: dict[str, Any], entries: Counter[Location]) -> Location:
    """The table that a header opens; for an entry of an array of tables with the entry's index."""
    path: Location = ()
    value: Any = header
    while value and isinstance(value, dict):
        key, value = next(iter(value.items()))
        path = (*path, key)
    if isinstance(value, list):
        entries[path] += 1
        path = (*path, entries[path] - 1)
    return path


def _nested(table: Location, content: dict[Any, Any]) -> dict[Any, Any]:
    for part in reversed(table):
        content = {part: content}
    return content


def _depth(content: Any, location: Location) -> int:
    """How many parts of the location lead somewhere in this content."""
    for depth, part in enumerate(location):
        if isinstance(content, str):
            return depth
        try:
            content = content[part]
        except (LookupError, TypeError):
            return depth
    return len(location)


def _element(statement: _Statement, location: Location) -> int:
    """The lines between a statement's first one and the one that holds the element of its list."""
    count = len(statement.lines)
    for stop in range(1, count + 1):
        # The list as far as it goes, closed.
        closed = [*statement.lines[:stop], *(["]"] if stop < count else [])]
        try:
            content = tomllib.loads("\n".join(closed))
        except tomllib.TOMLDecodeError:
            continue
        for start in range(len(location)):
            inner = location[start:]
            if _depth(content, inner) == len(inner) and any(isinstance(p, int) for p in inner[1:]):
                return stop - 1
    return 0
