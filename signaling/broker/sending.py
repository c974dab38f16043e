"""How a message goes: by Redis, or, where that is away, by the node alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from signaling.broker import wire
from signaling.broker.alone import Alone
from signaling.broker.attached import Attached
from signaling.broker.base import (
    Directed,
    Later,
    MailboxFull,
    NotThere,
    SessionOver,
    Unavailable,
)
from signaling.broker.echo import Echo, Echoes
from signaling.broker.ledger import Outgoing
from signaling.broker.reconcile import outcome_of
from signaling.broker.sessions import Sessions


class Sending:
    """Of one node."""

    def __init__(self, sessions: Sessions, echoes: Echoes, alone: Alone) -> None:
        """Prepare. :param alone: does without Redis what can be done without it."""
        self._sessions = sessions
        self._echoes = echoes
        self._alone = alone

    async def send(
        self, session: str, to: str, event: Directed, request: str = "", *, patient: bool = True
    ) -> bool:
        """Put an event into one peer's mailbox; while Redis is away, hand it on if we can."""
        if not wire.is_token(to):
            raise NotThere
        body = wire.body_of(event)
        with self._echoes.expect() as echo:
            # What a mailbox knows it by, also where the sender asks again at another node.
            tag = f"{session} {request}" if request else f"{self._sessions.node}:{echo.ticket}"
            message = to, request, body, "" if patient else "now", echo.ticket, tag
            doubtful = False
            while True:
                attached, asked = self._sessions.of(session), self._sessions.is_up
                try:
                    return await self._ask_to_send(attached, echo, message)
                except Unavailable:
                    if echo.heard:
                        return True  # done: only the answer was lost
                    doubtful = doubtful or asked
                    if self._sessions.is_up:
                        raise  # refused by a Redis that is there
                    with _refusing(attached, request, doubtful=doubtful):
                        recipient = await self._alone.recipient(attached, to, request)
                        if recipient is not None:
                            what = Outgoing(body, request, tag, doubtful)
                            self._alone.send(attached, recipient, what, self._sessions.deliver)
                            return True
                    if doubtful and not request:
                        raise  # nobody can tell whether it was done

    async def _ask_to_send(
        self, attached: Attached, echo: Echo, message: tuple[str, str, bytes, str, str, str]
    ) -> bool:
        """By Redis; returns when a recipient of this node has been handed it."""
        session, request = attached.record.session, message[1]
        reply = await self._sessions.call("send", attached.owner, session, *message)
        await echo.all(reply == b"here")
        attached.believe(request)
        return self._sent(attached, reply)

    async def broadcast(self, session: str, event: Directed, request: str = "") -> bool:
        """Put an event into the mailbox of everyone who shares a room."""
        body, doubtful = wire.body_of(event), False
        with self._echoes.expect() as echo:
            # One that is not answered has a name, too, by which it is done once.
            name = request or f"{self._sessions.node}:{echo.ticket}"
            tag = f"{session} {name}"
            while True:
                attached, asked = self._sessions.of(session), self._sessions.is_up
                try:
                    return await self._ask_to_broadcast(attached, echo, (name, body, tag))
                except Unavailable:
                    doubtful = doubtful or asked
                    if self._sessions.is_up:
                        raise  # refused by a Redis that is there
                    if echo.heard:  # done: only the answer was lost, and who has heard of it
                        attached.unsure = True
                        return False
                    with _refusing(attached, name, doubtful=doubtful, to_all=True):
                        if await self._alone.may_broadcast(attached, name):
                            peers = self._sessions.rosters.others(
                                attached.rooms, attached.record.peer
                            )
                            what = Outgoing(body, name, tag, doubtful)
                            with _unanswered(request):
                                self._alone.broadcast(attached, peers, what, self._sessions.deliver)
                            return True

    async def _ask_to_broadcast(
        self, attached: Attached, echo: Echo, message: tuple[str, bytes, str]
    ) -> bool:
        """By Redis; returns when all recipients of this node have been handed it."""
        request, body, tag = message
        reply = await self._sessions.call(
            "broadcast", attached.owner, attached.record.session, request, body, echo.ticket, tag
        )
        if isinstance(reply, list):
            await echo.all(reply[1])
            reply = reply[0]
        attached.believe(request)
        return self._sent(attached, reply)

    def _sent(self, attached: Attached, reply: bytes) -> bool:
        try:
            return outcome_of(reply)
        except SessionOver:
            raise self._sessions.gone(attached) from None


@contextmanager
def _refusing(
    attached: Attached, request: str, *, doubtful: bool, to_all: bool = False
) -> Iterator[None]:
    """Where a node does not do alone what Redis was asked for, that may be done yet."""
    try:
        yield
    except (Unavailable, MailboxFull):
        if doubtful:
            attached.doubt(request)
            attached.unsure = attached.unsure or to_all
        raise


@contextmanager
def _unanswered(request: str) -> Iterator[None]:
    """Where no request was named, nothing is answered later."""
    try:
        yield
    except Later:
        if request:
            raise
