"""One thing that the API does: what it is asked with, and what it answers."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web
from msgspec import Struct

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Parameter(NamedTuple):
    """A parameter of the path or of the query."""

    name: str
    about: str
    place: str = "query"
    kind: str = "string"


class Operation(NamedTuple):
    """A method and a path."""

    method: str
    path: str
    name: str
    about: str
    handler: Handler
    answer: type[Struct] | None
    """None: a stream of events."""
    parameters: tuple[Parameter, ...] = ()
    body: type[Struct] | None = None
    """What it may be sent; every field has a default where the body may be left out."""
    refusals: tuple[int, ...] = ()
    """Statuses that it fails with, beside those that every operation has."""
