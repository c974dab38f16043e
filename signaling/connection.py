"""A session whose client is connected to this node, or was last; and what it is connected by."""

from collections.abc import Sequence
from typing import Protocol

from signaling.broker.base import SessionRecord
from signaling.protocol import messages as m
from signaling.protocol.errors import CloseCode
from signaling.session import RateLimit

CUTS = {
    CloseCode.SLOW_READER: "events were not acknowledged in time",
    CloseCode.REPLACED: "the session goes on over another socket",
    CloseCode.SESSION_OVER: "the session is over",
    CloseCode.REMOVED: "an operator has ended the session",
    CloseCode.UNAUTHORIZED: "an operator has revoked the user",
    CloseCode.FLOOD: "too many messages",
    CloseCode.GOING_AWAY: "the server stops",
}
"""What a socket is told that is cut."""


class Connection(Protocol):
    """A client's socket."""

    native: bool
    """Whether it speaks ``icebroker.v1``: others are told nothing but events."""

    def begin(self, frames: Sequence[bytes]) -> None:
        """Queue the first frames, whatever the limits of ``send``; once, before anything else."""

    def send(self, frame: bytes, since: float | None = None) -> None:
        """Queue a text frame; a reader that is too slow is cut.

        :param since: of an event, when it came to this node (monotonic time): it is measured when
            it has gone out.
        """

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the socket soon; returns at once."""


class Session:
    """A session whose socket is (or was last) at this node."""

    def __init__(self, record: SessionRecord, connection: Connection, rate: RateLimit) -> None:
        self.record = record
        self.connection: Connection | None = connection
        self.rate = rate
        self.sent = 0
        """The ``seq`` of the last event handed to the socket."""
        self.ice_due: float | None = None
        """Unix time at which fresh ICE servers are pushed."""
        self.forget_at: float | None = None
        """Monotonic time; set while the socket is lost."""

    @property
    def user(self) -> str:
        """Whom the relay's quota counts, and an operator can revoke."""
        return self.record.user

    def facts(self) -> dict[str, object]:
        """What an operator is told of it wherever it is named."""
        return {"peer": self.record.peer, "name": self.record.name, "user": self.user}

    def answer(self, message: m.ServerMessage) -> None:
        """Tell the client, where it is there."""
        if self.connection is not None:
            self.connection.send(m.encode(message))

    def cut(self, code: CloseCode) -> None:
        """Close the socket, where there is one."""
        if self.connection is not None:
            self.connection.close(code, CUTS[code])
