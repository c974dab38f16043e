"""The client's half of a session, without sockets or clocks.

What has arrived (``seen``), and what was asked and is not answered yet, to be sent again with the
same id after a resume.
"""

import asyncio
import itertools
from enum import Enum
from typing import Any

from signaling.client.errors import SignalingError

MOST_WAITING = 256
"""Requests without an answer; a further one fails at once."""
MOST_REFUSALS = 8
"""Answers "try again" that one request takes."""
ANSWERS = frozenset({"ok", "joined", "ice", "error"})
OUTLIVES_SESSION = frozenset({"join", "ice"})


class Welcome(Enum):
    """What a welcome means for what was before it."""

    FIRST = "first"
    RESUMED = "resumed"
    """Nothing was lost."""
    RESTARTED = "restarted"
    """The session before is over, and so are its rooms."""


class Request:
    """What was asked, until it is answered."""

    __slots__ = ("answer", "frame", "refusals")

    def __init__(self, frame: dict[str, Any]) -> None:
        self.frame = frame
        self.answer: asyncio.Future[dict[str, Any]]
        self.answer = asyncio.get_running_loop().create_future()
        self.refusals = 0


class Session:
    """Begins with the first welcome; a later one may begin another in its place."""

    def __init__(self) -> None:
        self.peer = ""
        """This client's own peer id."""
        self.seen = 0
        """The number of the last event that was handled."""
        self._acknowledged = 0
        self._granted: dict[str, str] | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[str, Request] = {}

    def resumption(self) -> dict[str, Any] | None:
        """What ``hello`` says of the session before, if there is one."""
        return {**self._granted, "seq": self.seen} if self._granted else None

    def welcome(self, message: dict[str, Any]) -> Welcome:
        """Enter the session that the server granted. :raises LookupError: it says not which."""
        is_first, resumed = self._granted is None, message["resumed"]
        self._granted = {"session": message["session"], "secret": message["secret"]}
        self.peer = message["peer"]
        if not resumed:
            self.seen = 0
            self._lose_what_was_for_the_old_session()
        self._acknowledged = self.seen
        if is_first:
            return Welcome.FIRST
        return Welcome.RESUMED if resumed else Welcome.RESTARTED

    # Requests ------------------------------------------------------------------------------

    def request(self, message: dict[str, Any]) -> Request:
        """Give a message its id, and keep it. :raises SignalingError: ``queue_full``."""
        if len(self._waiting) >= MOST_WAITING:
            raise SignalingError("queue_full", "too many requests wait", retryable=True)
        request_id = str(next(self._ids))
        request = self._waiting[request_id] = Request({**message, "id": request_id})
        return request

    def forget(self, request: Request) -> None:
        """It is answered, or nobody waits for that any more."""
        self._waiting.pop(request.frame["id"], None)

    def requests(self) -> list[Request]:
        """Those without an answer, oldest first."""
        return list(self._waiting.values())

    def answered_by(self, message: dict[str, Any]) -> Request | None:
        """Whose answer this is, if it is one."""
        is_answer = message.get("type") in ANSWERS
        return self._waiting.get(message.get("id", "")) if is_answer else None

    @staticmethod
    def settle(request: Request, message: dict[str, Any]) -> bool:
        """Take an answer; False where it says to try again, and there is sense in that."""
        if request.answer.done():
            return True
        if message["type"] != "error":
            request.answer.set_result(message)
            return True
        request.refusals += 1
        if message.get("retryable") and request.refusals < MOST_REFUSALS:
            return False
        error = SignalingError(message["code"], message["message"], retryable=message["retryable"])
        request.answer.set_exception(error)
        return True

    def fail(self, error: SignalingError) -> None:
        """The end of everything that waits."""
        for request in self._waiting.values():
            if not request.answer.done():
                request.answer.set_exception(error)

    def _lose_what_was_for_the_old_session(self) -> None:
        for request in self._waiting.values():
            if request.frame["type"] not in OUTLIVES_SESSION and not request.answer.done():
                request.answer.set_exception(
                    SignalingError("session_lost", "the session could not go on", retryable=True)
                )

    # Events --------------------------------------------------------------------------------

    def accept(self, seq: int) -> bool:
        """Whether an event is new; a replayed one that was handled before is not."""
        if seq <= self.seen:
            return False
        self.seen = seq
        return True

    @property
    def unacknowledged(self) -> int:
        """How many events were handled that the server does not know of."""
        return self.seen - self._acknowledged

    def acknowledge(self) -> dict[str, Any]:
        """The message that tells it."""
        self._acknowledged = self.seen
        return {"type": "ack", "seq": self.seen}
