"""Listing, inspecting and ending the things that services have, one set of operations a kind."""

import time
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from turn.admin.actions import Actions, now_or_503
from turn.admin.guard import ApiError, answer
from turn.admin.operation import Operation, Parameter, named
from turn.admin.paging import MOST, USUAL, BadQuery, filters_of, numbers_of, page, parse_query
from turn.admin.service import Collection


class Ended(Struct, frozen=True):
    """It is over."""

    id: str
    ended: bool = True


class Lists:
    """The operations on one collection."""

    def __init__(self, collection: Collection, actions: Actions) -> None:
        self._collection = collection
        self._actions = actions
        name = collection.name
        self._page = msgspec.defstruct(
            f"{name.capitalize()}Page",
            [
                (name, list[collection.summary]),  # type: ignore[name-defined] # known only here
                ("next", str | None),
                ("total", int),
                ("unfiltered", int),
                ("part", str | None),
            ],
            frozen=True,
        )
        self._page.__doc__ = (
            "A page of them: `next` goes into `after` for the page behind it, and is null on the "
            "last one, and where they are sorted; `total` counts those that the filters let "
            "through, on all pages, `unfiltered` all that there are; `part` says of what it is a "
            "part only, and where the rest is."
        )

    def operations(self) -> list[Operation]:
        """List, inspect, end."""
        collection, noun = self._collection, self._collection.noun
        one = Parameter("id", f"The {noun}'s id.", "path")
        query = (
            Parameter(
                "limit", f"At most so many, 1 to {MOST}; {USUAL} if not said.", kind="integer"
            ),
            Parameter("after", "Those behind this one: `next` of the page before."),
            *self._sorting(),
            *(
                Parameter(name, f"Only those whose `{name}` is, or has among them, this.")
                for name in filters_of(collection)
            ),
        )
        path, upper = f"/api/v1/{collection.name}", noun.capitalize()
        of_one = [
            Operation("GET", f"{path}/{{id}}", f"inspect{upper}", f"All of one {noun}.",
                      self._inspect, collection.details, (one,), refusals=(404, 503)),
            Operation("DELETE", f"{path}/{{id}}", f"end{upper}", collection.ends,
                      self._end, Ended, (one,), refusals=(404, 503)),
        ]  # fmt: skip
        return [
            Operation("GET", path, f"list{upper}s", f"List {collection.name}.",
                      self._list, self._page, query, refusals=(400,)),
            *of_one,
            *(operation.by_query(noun) for operation in of_one),
        ]  # fmt: skip

    def _sorting(self) -> list[Parameter]:
        numbers = numbers_of(self._collection)
        about = (
            f"Those with most of it first, one of {', '.join(numbers)}; there is no page behind."
        )
        return [Parameter("sort", about)] if numbers else []

    async def _list(self, request: web.Request) -> web.Response:
        try:
            query = parse_query(self._collection, request.query)
        except BadQuery as error:
            raise ApiError(400, str(error)) from None
        part = await self._collection.part() or None
        return answer(self._page(*await page(self._collection, query), part))

    async def _inspect(self, request: web.Request) -> web.Response:
        thing = await self._find(request)
        return answer(await now_or_503(self._collection.inspect(thing, time.monotonic())))

    async def _end(self, request: web.Request) -> web.Response:
        thing = await self._find(request)
        name = named(request, "id")
        self._actions.done(request, f"end_{self._collection.noun}", id=name)
        await now_or_503(self._collection.end(thing))
        return answer(Ended(name))

    async def _find(self, request: web.Request) -> Any:
        things = await self._collection.snapshot()
        name = named(request, "id")
        if name not in things:
            raise ApiError(404, f"there is no {self._collection.noun} {name!r} here now")
        return things[name]
