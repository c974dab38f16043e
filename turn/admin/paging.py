"""Lists, a page at a time: filtered by what an entry says, continued after the last one's id."""

import asyncio
import time
from collections.abc import Mapping
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
    filters: Mapping[str, str]


def filters_of(collection: Collection) -> list[str]:
    """What the entries of a list can be filtered by."""
    fields = msgspec.structs.fields(collection.summary)
    return [field.name for field in fields if field.name != "id" and _is_plain(field.type)]


def parse_query(collection: Collection, query: Mapping[str, str]) -> Query:
    """Read a list's query. :raises BadQuery: a name or a number is wrong."""
    known = filters_of(collection)
    filters = {name: value for name, value in query.items() if name not in {"limit", "after"}}
    for name in filters:
        if name not in known:
            raise BadQuery(f"no parameter {name!r}; there are limit, after, {', '.join(known)}")
    limit = query.get("limit", str(USUAL))
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MOST:
        raise BadQuery(f"limit is a number from 1 to {MOST}")
    return Query(int(limit), query.get("after", ""), filters)


async def page(collection: Collection, query: Query) -> tuple[list[Struct], str | None, int]:
    """One page: its entries, what to continue after (None: it is the last), and how many exist."""
    things = await collection.snapshot()
    found: list[Struct] = []
    start = _order(query.after)
    for count, name in enumerate(sorted(things, key=_order)):
        if count % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        if query.after and _order(name) <= start:
            continue
        entry = collection.summarize(things[name], time.monotonic())
        if all(_says(getattr(entry, field), text) for field, text in query.filters.items()):
            if len(found) == query.limit:
                return found, found[-1].id, len(things)  # type: ignore[attr-defined] # all have one
            found.append(entry)
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
