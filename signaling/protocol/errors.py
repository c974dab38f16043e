"""What can go wrong, as the protocol says it: error codes and close codes, one table each."""

from enum import IntEnum, StrEnum


class ErrorCode(StrEnum):
    """``code`` of an ``error`` message; the text beside it is for people."""

    BAD_MESSAGE = "bad_message"
    UNKNOWN_TYPE = "unknown_type"
    HELLO_FIRST = "hello_first"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    """No such room or peer for this client, whatever the reason."""
    ROOM_FULL = "room_full"
    TOO_MANY_ROOMS = "too_many_rooms"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """The user whom the token names has as many sockets open as it may have."""
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    """The recipient is away and its mailbox is full: nothing was sent."""
    UNAVAILABLE = "unavailable"


RETRYABLE = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.QUEUE_FULL, ErrorCode.UNAVAILABLE})
"""The same request may succeed a little later."""


class ProtocolError(Exception):
    """A message fails with this code; the socket lives."""

    def __init__(self, code: ErrorCode, message: str, reason: str = "") -> None:
        """Know it. :param reason: what only operators are told, where that is more."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or message

    @property
    def retryable(self) -> bool:
        """Whether trying again later makes sense."""
        return self.code in RETRYABLE


class CloseCode(IntEnum):
    """WebSocket close codes: 4000 to 4499 mean reconnect, 4500 to 4999 mean do not."""

    NORMAL = 1000
    """From a client: it leaves for good. Any other end of its socket suspends it."""
    GOING_AWAY = 4000
    HEARTBEAT = 4001
    SLOW_READER = 4002
    SESSION_OVER = 4003
    """The broker has ended the session that this socket belongs to; a new one can begin."""
    UNAVAILABLE = 4004
    """What the server needs is away: come back a little later."""
    REPLACED = 4501
    """The session goes on over a newer socket."""
    HELLO_TIMEOUT = 4502
    UNAUTHORIZED = 4503
    FLOOD = 4504
    TOO_LARGE = 4505
    NOT_TEXT = 4506
    REMOVED = 4507
    """An operator has ended the session."""
    TOO_MANY_CONNECTIONS = 4508
