"""Lists, a page at a time: filtered by what an entry says, continued after the last one's id.

Or by size: the few that have most of something, which is what one looks for in thousands.
"""

import asyncio
import time
from collections.abc import Mapping
from heapq import nlargest
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct

from turn.admin.service import Collection

MOST = 500
USUAL = 100
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
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MOST:
        raise BadQuery(f"limit is a number from 1 to {MOST}")
    after, sort = query.get("after", ""), query.get("sort", "")
    if sort and sort not in numbers:
        raise BadQuery(f"sort is one of {', '.join(numbers)}")
    if sort and after:
        raise BadQuery("after goes by ids; with sort, raise limit")
    return Query(int(limit), after, sort, filters)


async def page(collection: Collection, query: Query) -> tuple[list[Struct], str | None, int]:
    """One page: its entries, what to continue after (None: it is the last), and how many exist."""
    things = await collection.snapshot()
    found: list[Struct] = []
    start = _order(query.after)
    limit = len(things) if query.sort else query.limit
    for count, name in enumerate(sorted(things, key=_order)):
        if count % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        if query.after and _order(name) <= start:
            continue
        entry = collection.summarize(things[name], time.monotonic())
        if all(_says(getattr(entry, field), text) for field, text in query.filters.items()):
            if len(found) == limit:
                return found, found[-1].id, len(things)  # type: ignore[attr-defined] # all have one
            found.append(entry)
    if query.sort:
        found = nlargest(query.limit, found, key=attrgetter(query.sort))
    return found, None, len(things)


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
