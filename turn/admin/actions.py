"""What the API does to the process as a whole, and how it goes."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Sequence
from importlib.metadata import version
from typing import Any, Literal, TypeVar

import msgspec
import structlog
from aiohttp import web
from msgspec import Struct

from turn.admin.drain import Drain, DrainState
from turn.admin.guard import ApiError, answer
from turn.admin.journal import Event, Journal, rfc3339
from turn.admin.operation import Operation, Parameter, named
from turn.admin.service import Control, Service

log = structlog.get_logger("admin")

S = TypeVar("S", bound=Struct)
T = TypeVar("T")

DAY = 86400.0
LONGEST = 366 * DAY
LONGEST_DRAIN = DAY
MOST_LISTED = 500
BODY_PATIENCE = 10.0
"""Seconds that a request's body has to come."""


class ProcessFigures(Struct, frozen=True):
    """What the process takes."""

    cpu_seconds: float
    largest_resident_bytes: int


class DrainRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How long clients have."""

    seconds: float = 30.0


class Reloaded(Struct, frozen=True):
    """The configuration was read and applied."""

    reloaded: bool = True


class LogLevel(Struct, frozen=True, forbid_unknown_fields=True):
    """The least important lines that are written; a reload puts it back."""

    level: Literal["debug", "info", "warning", "error"]


class Revoke(Struct, frozen=True, forbid_unknown_fields=True):
    """For how long a user may begin nothing new."""

    seconds: float = DAY


class Revocation(Struct, frozen=True):
    """A user that may begin nothing new."""

    user: str
    until: str
    """RFC 3339."""
    ended: dict[str, int]
    """What it had at this process, by service."""
    everywhere: bool
    """Whether every process that shares the Redis has it too; false: this process alone."""


class Revocations(Struct, frozen=True):
    """Those that hold now."""

    revocations: list[Revocation]


class Refusals(Struct, frozen=True):
    """The last refusals, the newest first."""

    refusals: list[Event]


class Errors(Struct, frozen=True):
    """The last warnings and errors of the log, the newest first."""

    errors: list[Event]


HERE_ALONE = "{0} at this process alone, {1!r}: ask again when the others can be told; {2}"


class Actions:
    """Operations on all services together."""

    def __init__(
        self, services: Sequence[Service], journal: Journal, control: Control, drain: Drain
    ) -> None:
        self._services = services
        self._journal = journal
        self._control = control
        self._drain = drain
        self._started = time.time()
        self._revoked: dict[str, tuple[float, Revocation]] = {}
        fields = [(service.name, service.figures_type) for service in services]
        self._figures = msgspec.defstruct("Services", fields, frozen=True)
        self._status = msgspec.defstruct(
            "Status",
            [
                ("version", str), ("started", str), ("now", str),
                ("ready", bool), ("problems", dict[str, list[str]]),
                ("drain", DrainState), ("process", ProcessFigures), ("services", self._figures),
            ],
            frozen=True,
        )  # fmt: skip
        self._status.__doc__ = "How the process goes."
        self._figures.__doc__ = "The services that this process runs."

    def operations(self) -> list[Operation]:
        """All of them."""
        code = Parameter("code", "Only refusals with this code, as 403 or room_full.")
        who = Parameter("user", "Only those of this user.")
        whose = Parameter("tenant", "Only those of this tenant's users, once they have proved it.")
        user = Parameter("user", "The user's name, without an expiry.", "path")
        v1 = "/api/v1"
        of_user = [
            Operation("PUT", f"{v1}/revocations/{{user}}", "revoke",
                      "End all allocations and sessions of a user, and refuse new ones.",
                      self._put_revocation, Revocation, (user,), Revoke, (400, 503)),
            Operation("DELETE", f"{v1}/revocations/{{user}}", "restore",
                      "Let a user begin again that was revoked, at whichever node.",
                      self._delete_revocation, Revocations, (user,), refusals=(400, 503)),
        ]  # fmt: skip
        return [
            Operation("GET", f"{v1}/status", "status", "How the process goes.",
                      self._get_status, self._status),
            Operation("GET", f"{v1}/refusals", "refusals",
                      "Why was this refused: the last refusals of each reason, newest first.",
                      self._get_refusals, Refusals, (code, who, whose), refusals=(400,)),
            Operation("GET", f"{v1}/errors", "errors",
                      "The last warnings and errors of the log.", self._get_errors, Errors),
            Operation("GET", f"{v1}/drain", "drainState", "How far a drain is.",
                      self._get_drain, DrainState),
            Operation("POST", f"{v1}/drain", "drain",
                      "Turn new work away and ask clients to leave; nothing is cut.",
                      self._post_drain, DrainState, body=DrainRequest, refusals=(400,)),
            Operation("DELETE", f"{v1}/drain", "resume", "Take new work again.",
                      self._delete_drain, DrainState),
            Operation("POST", f"{v1}/reload", "reload",
                      "Read the configuration again, as SIGHUP does: whole, or not at all.",
                      self._post_reload, Reloaded, refusals=(409,)),
            Operation("GET", f"{v1}/log", "logLevel", "What is logged.", self._get_log, LogLevel),
            Operation("PUT", f"{v1}/log", "setLogLevel", "Log more or less, until a reload.",
                      self._put_log, LogLevel, body=LogLevel, refusals=(400,)),
            Operation("GET", f"{v1}/revocations", "revocations",
                      "Users revoked here since the start.", self._get_revocations, Revocations),
            *of_user,
            *(operation.by_query("revocation") for operation in of_user),
        ]  # fmt: skip

    # Looking -------------------------------------------------------------------------------

    async def _get_status(self, _: web.Request) -> web.Response:
        await asyncio.gather(*(service.refresh() for service in self._services))
        problems = {service.name: service.ready() for service in self._services}
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return answer(
            self._status(
                version("icebroker"),
                rfc3339(self._started),
                rfc3339(time.time()),
                not any(problems.values()),
                problems,
                self._drain.state(),
                ProcessFigures(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024),
                self._figures(*(service.figures() for service in self._services)),
            )
        )

    async def _get_refusals(self, request: web.Request) -> web.Response:
        wanted = only(request, "code", "user", "tenant")
        found = [
            event
            for event in self._journal.refusals()
            if all(str(event.facts.get(name, "")) == value for name, value in wanted.items())
        ]
        return answer(Refusals(found[:MOST_LISTED]))

    async def _get_errors(self, _: web.Request) -> web.Response:
        return answer(Errors(self._journal.errors()))

    # Draining, reloading, logging ----------------------------------------------------------

    async def _get_drain(self, _: web.Request) -> web.Response:
        return answer(self._drain.state())

    async def _post_drain(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, DrainRequest)
        if not 0 <= wanted.seconds <= LONGEST_DRAIN:
            raise ApiError(400, f"seconds: from 0 to {LONGEST_DRAIN:.0f}")
        self.done(request, "drain", seconds=wanted.seconds)
        return answer(self._drain.begin(wanted.seconds))

    async def _delete_drain(self, request: web.Request) -> web.Response:
        self.done(request, "resume")
        return answer(self._drain.resume())

    async def _post_reload(self, request: web.Request) -> web.Response:
        self.done(request, "reload")
        problems = self._control.reload()
        if problems:
            raise ApiError(409, "configuration refused; the one in use stays", problems)
        return answer(Reloaded())

    async def _get_log(self, _: web.Request) -> web.Response:
        return answer(msgspec.convert({"level": self._control.log_level}, LogLevel))

    async def _put_log(self, request: web.Request) -> web.Response:
        wanted = await body_of(request, LogLevel)
        self._control.set_log_level(wanted.level)
        self.done(request, "log_level", level=wanted.level)
        return answer(wanted)

    # Revoking ------------------------------------------------------------------------------

    async def _get_revocations(self, _: web.Request) -> web.Response:
        return answer(self._revocations())

    async def _put_revocation(self, request: web.Request) -> web.Response:
        user = _user(request)
        wanted = await body_of(request, Revoke)
        if not 0 < wanted.seconds <= LONGEST:
            raise ApiError(400, f"seconds: more than 0, up to {LONGEST:.0f}")
        until = time.time() + wanted.seconds
        self.done(request, "revoke", user=user, seconds=wanted.seconds)
        ended: dict[str, int] = {}
        try:
            for service in self._services:
                ended[service.name] = await service.revoke(user, until)
            everywhere = await self._control.spread_revocation(user, until)
        except ConnectionError as error:
            self._revoked[user] = until, Revocation(user, rfc3339(until), ended, everywhere=False)
            raise ApiError(503, HERE_ALONE.format("revoked", user, error)) from None
        made = Revocation(user, rfc3339(until), ended, everywhere)
        self._revoked[user] = until, made
        return answer(made)

    async def _delete_revocation(self, request: web.Request) -> web.Response:
        user = _user(request)
        self.done(request, "restore", user=user)
        try:
            for service in self._services:
                await service.restore(user)
            await self._control.spread_revocation(user, 0.0)
        except ConnectionError as error:
            raise ApiError(503, HERE_ALONE.format("restored", user, error)) from None
        self._revoked.pop(user, None)
        return answer(self._revocations())

    def _revocations(self) -> Revocations:
        now = time.time()
        for user in [user for user, (until, _) in self._revoked.items() if until <= now]:
            del self._revoked[user]
        return Revocations([made for _, made in self._revoked.values()])

    def done(self, request: web.Request, action: str, **facts: Any) -> None:
        """Tell the log and whoever watches of what an operator does."""
        log.info("operator", action=action, remote=request.remote, **facts)
        self._journal.tell("operator", {"action": action, "remote": request.remote, **facts})


def _user(request: web.Request) -> str:
    """Whom a request is about. :raises ApiError: 400, it does not say."""
    user = named(request, "user")
    if not user:
        raise ApiError(400, "say whom: ?user=")
    return user


async def body_of(request: web.Request, kind: type[S]) -> S:
    """What a request says. :raises ApiError: 400."""
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            data = await request.read()
        return msgspec.json.decode(data or b"{}", type=kind)
    except TimeoutError:
        raise ApiError(408, "the body did not come") from None
    except (msgspec.DecodeError, web.RequestPayloadError) as error:
        raise ApiError(400, f"the body is not what is asked for: {error}") from None


def only(request: web.Request, *known: str) -> dict[str, str]:
    """The query, if it has no other parameters than these. :raises ApiError: 400."""
    for name in request.query:
        if name not in known:
            raise ApiError(400, f"no parameter {name!r}; there are {', '.join(known)}")
    return dict(request.query)


async def now_or_503(doing: Awaitable[T]) -> T:
    """What is done now. :raises ApiError: 503, what it needs is away."""
    try:
        return await doing
    except ConnectionError as error:
        raise ApiError(503, str(error)) from None
