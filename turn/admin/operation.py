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
    required: bool = False
    """Also outside of the path, where it always is."""


def named(request: web.Request, parameter: str) -> str:
    """Whom or what a request means, by its path or by its query (``by_query``)."""
    return request.match_info.get(parameter) or request.query.get(parameter, "")


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

    def by_query(self, noun: str) -> "Operation":
        """The same with its parameter in the query: ``/api/v1/room?id=..``.

        Whoever asks for a path takes ``..`` out of it, percent-encoded too (WHATWG URL §4.4), and
        proxies do what they will with a slash; users choose their own names.
        """
        (parameter,) = self.parameters
        above, _, _ = self.path.rpartition("/")
        return self._replace(
            path=f"{above.rpartition('/')[0]}/{noun}",
            name=f"{self.name}ByQuery",
            about=f"{self.about} By `?{parameter.name}=`, which may also be `..`.",
            parameters=(parameter._replace(place="query", required=True),),
        )
