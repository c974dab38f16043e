"""Where in a TOML text a setting stands: the line that an operator has to edit.

A statement of TOML (a header or a key with its value) ends at the first line end where the lines
since the one before it are valid TOML by themselves; so ``tomllib`` reads, and nothing here does.
A list may have thousands of lines, so it is not tried at each of them.
"""

import tomllib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

Location = tuple[int | str, ...]


class _Statement(NamedTuple):
    line: int
    """Its first line, from 1."""
    lines: list[str]
    content: dict[str, Any]
    """What it says, from the root of the document."""


class Places:
    """The statements of a valid TOML text; they are read when the first place is asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def line_of(self, location: Location) -> int:
        """The line (from 1) that sets ``location`` or its nearest parent, or 0.

        :param location: keys, and indices of lists, as ``("turn", "allow_peers", 1)``.
        """
        best, best_depth = 0, 0
        for statement in self._statements:
            depth = _depth(statement.content, location)
            if depth > best_depth:
                best, best_depth = statement.line + _element(statement, location), depth
        return best

    @cached_property
    def _statements(self) -> list[_Statement]:
        return list(_statements(self._text))


def _statements(text: str) -> Iterator[_Statement]:
    """Each statement, placed in the table that the last header before it opened."""
    table: Location = ()
    entries: Counter[Location] = Counter()
    pending: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        pending.append(line)
        if len(pending) > 1 and not _may_end(line):
            continue
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


def _may_end(line: str) -> bool:
    """Whether a statement of several lines can end here: something closes, and no comma follows."""
    closes = any(mark in line for mark in ("]", "}", '"""', "'''"))
    return closes and ("#" in line or not line.rstrip().endswith(","))


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
    """The lines between a statement's first one and that of the element of its list."""
    lines = statement.lines

    def holds(stop: int) -> bool:
        """Whether the list has the element by this line, or by the end of what begins there."""
        for end in range(stop, len(lines)):
            try:
                return _holds(tomllib.loads("\n".join([*lines[:end], "]"])), location)
            except tomllib.TOMLDecodeError:
                continue  # in the middle of an element
        return True

    if not _holds(tomllib.loads("\n".join(lines)), location):
        return 0
    return bisect_left(range(1, len(lines)), True, key=holds)


def _holds(content: dict[str, Any], location: Location) -> bool:
    """Whether the content of a statement has the element of a list that the location ends in."""
    return any(
        _depth(content, location[start:]) == len(location) - start
        for start in range(len(location))
        if any(isinstance(part, int) for part in location[start + 1 :])
    )
