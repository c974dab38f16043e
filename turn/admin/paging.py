"""Lists, a page at a time: filtered by what an entry says, continued after the last one's id.

Or by size: the few that have most of something, which is what one looks for in thousands.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from heapq import nlargest
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from turn.admin.service import Collection

MOST = 500
USUAL = 100
MOST_DIGITS = 9
"""Of a number; Python reads none of thousands."""
BREATH = 200
"""Entries between two moments in which the process does what it is for."""


class BadQuery(Exception):
    """A query parameter is not understood; the message says which ones are."""


class Query(Struct, frozen=True):
    """What a list is asked for."""

    limit: int
    after: str
    sort: str
    """The number of which there shall be most in the first one; "": in the order of ids."""
    filters: Mapping[str, str]


def filters_of(collection: Collection) -> list[str]:
    """What the entries of a list can be filtered by."""
    fields = msgspec.structs.fields(collection.summary)
    return [field.name for field in fields if field.name != "id" and _is_plain(field.type)]


def numbers_of(collection: Collection) -> list[str]:
    """What the entries of a list can be sorted by."""
    fields = msgspec.structs.fields(collection.summary)
    return [field.name for field in fields if field.type in {int, float}]


def parse_query(collection: Collection, query: Mapping[str, str]) -> Query:
    """Read a list's query. :raises BadQuery: a name or a number is wrong."""
    known, numbers = filters_of(collection), numbers_of(collection)
    others = ["limit", "after", *(["sort"] if numbers else [])]
    filters = {name: value for name, value in query.items() if name not in others}
    for name in filters:
        if name not in known:
            raise BadQuery(f"no parameter {name!r}; there are {', '.join([*others, *known])}")
    limit = query.get("limit", str(USUAL))
    if not limit.isdecimal() or len(limit) > MOST_DIGITS or not 1 <= int(limit) <= MOST:
        raise BadQuery(f"limit is a number from 1 to {MOST}")
    after, sort = query.get("after", ""), query.get("sort", "")
    if sort and sort not in numbers:
        raise BadQuery(f"sort is one of {', '.join(numbers)}")
    if sort and after:
        raise BadQuery("after goes by ids; with sort, raise limit")
    return Query(int(limit), after, sort, filters)


class Page(NamedTuple):
    """A part of a list."""

    entries: list[Struct]
    following: str | None
    """What to continue after; None: it is the last page."""
    total: int
    """How many the filters let through, on all pages."""
    unfiltered: int
    """How many there are."""


async def page(collection: Collection, query: Query) -> Page:
    """One page of a list."""
    things = await collection.snapshot()
    names = sorted(things, key=_order)
    if not query.filters and not query.sort:  # then only those of the page are looked at
        rest = names[bisect_right(names, _order(query.after), key=_order) :]
        entries = await _summaries(collection, things, rest[: query.limit])
        return _first(entries, len(rest), len(things), len(things))
    entries = [
        entry
        for entry in await _summaries(collection, things, names)
        if all(_says(getattr(entry, field), text) for field, text in query.filters.items())
    ]
    if query.sort:
        some = nlargest(query.limit, entries, key=attrgetter(query.sort))
        return Page(some, None, len(entries), len(things))
    behind = entries[bisect_right(entries, _order(query.after), key=_order_of) :]
    return _first(behind[: query.limit], len(behind), len(entries), len(things))


def _first(entries: list[Struct], of: int, total: int, unfiltered: int) -> Page:
    """A page that begins with the first of so many."""
    following = entries[-1].id if len(entries) < of else None  # type: ignore[attr-defined] # all have one
    return Page(entries, following, total, unfiltered)


async def _summaries(
    collection: Collection, things: Mapping[str, Any], names: Sequence[str]
) -> list[Struct]:
    entries = []
    for count, name in enumerate(names):
        if count % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        entries.append(collection.summarize(things[name], time.monotonic()))
    return entries


def _order_of(entry: Struct) -> tuple[int, str]:
    return _order(entry.id)  # type: ignore[attr-defined] # all have one


def _order(name: str) -> tuple[int, str]:
    # Numbers by size, and everything else by some order that does not change.
    return len(name), name


def _says(value: Any, text: str) -> bool:
    if isinstance(value, list):
        return text in value
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    return str(value) == text


def _is_plain(kind: Any) -> bool:
    return kind in {str, bool, list[str]}
