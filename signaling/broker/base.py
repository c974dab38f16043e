"""What a broker is, and what it guarantees to every node.

The mailbox is the truth: an event is numbered and kept there before anything else happens, and
a node's hub is only woken. A node that asks after a gap gets it from the mailbox.
"""

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

import msgspec
from msgspec import Raw

from config.webhooks.waiting import Away, Queued
from signaling.protocol.errors import CloseCode
from signaling.protocol.messages import ByeOut, MessageOut, PeerEntry, SignalOut
from signaling.protocol.peerjs import Forwarded
from turn.auth.ephemeral import name_in

Directed = SignalOut | MessageOut | ByeOut | Forwarded


class Revocation(msgspec.Struct, frozen=True):
    """What an operator took from a user; times are Unix times in seconds."""

    user: str
    until: float
    """It may begin nothing before then; 0: it may."""
    spent: float
    """Relay credentials of its that end by then are of no use any more; 0: they are."""


class Listener(Protocol):
    """The node, as the broker sees it. Neither method may block."""

    def deliver(self, session: str, seq: int, frame: bytes) -> None:
        """An event for a session that is attached here, as a text frame (UTF-8)."""

    def cut(self, session: str, code: CloseCode) -> None:
        """A session's socket is to be closed.

        SLOW_READER: something could not be kept. REPLACED: the session went to another node.
        SESSION_OVER: it has ended, or is not this node's any more: the client comes back.
        """

    def revoked(self, revocation: Revocation) -> None:
        """Something was revoked, at whichever node; perhaps told again."""


class Grant(msgspec.Struct, frozen=True):
    """What a session may do, from its token or from the settings."""

    room: str = ""
    """The one room that it may join; "" = any."""
    subject: str = ""
    """Whom the relay's quota counts; "" = the peer."""
    capacity: int = 64
    resume_window: float = 30.0
    can_publish: bool = True
    tenant: str = ""
    """Of the relay, whose user that is; "" = nobody's."""


class SessionRecord(msgspec.Struct):
    """A session as any node needs it to go on with it."""

    session: str
    secret_hash: bytes
    peer: str
    name: str
    grant: Grant

    @property
    def user(self) -> str:
        """Whom the relay's quota counts, and an operator can revoke."""
        return name_in(self.grant.tenant, self.grant.subject or self.peer)


class Node(NamedTuple):
    """One of those that share the broker."""

    id: str
    """Its own, new at each start."""
    name: str
    """Of the machine that it runs on."""
    sessions: int
    """Whose sockets it holds."""


class Resumption(NamedTuple):
    """What a session that came back goes on with."""

    record: SessionRecord
    missed: list[tuple[int, bytes]]
    """(seq, text frame) after the last one that the client saw."""
    seq: int
    """The last event before those."""


class NotThere(Exception):
    """The recipient shares no room with the sender, or does not exist: one answer for both."""


class SessionOver(Exception):
    """The session that asks has ended or lives elsewhere, though a socket of it is still here."""


class Taken(Exception):
    """A session of that name lives already."""


class RoomFull(Exception):
    """The room has no place left."""


class MailboxFull(Exception):
    """The recipient is away and its mailbox holds no more; nothing was sent."""


class Later(Exception):
    """It was handed on; that it cannot be lost any more is known later."""

    def __init__(self, answer: Awaitable[bool]) -> None:
        """Say when. :param answer: as ``Broker.send`` returns, or raises."""
        super().__init__()
        self.answer = answer


class Unavailable(Away):
    """What the broker needs is away: whether it was done is not known, a retry does no harm."""


class Broker(Protocol):
    """Sessions, rooms and mailboxes.

    Guarantees: events of one sender to one recipient arrive in the order in which they were
    published; an event for which a method returned is delivered, replayed, or its recipient is
    told ``resumed: false``; exactly one ``leave`` for each ``join``. A request that is repeated
    with the same ``request`` id, here or on another node, is done once. ``now`` is monotonic
    time of the calling node.

    What acts for a session (``join``, ``leave``, ``send``, ``broadcast``) raises ``SessionOver``
    where it has ended or is not this node's any more. Everything may raise ``Unavailable``,
    except ``suspend``, ``close``, ``acknowledge`` and ``reap``, which are made up for later.
    """

    waits: bool
    """Whether it asks somebody else: its methods may take a while."""

    async def start(self, listener: Listener) -> None:
        """Begin to work; ``listener`` hears of the sessions that are attached here."""

    async def stop(self) -> None:
        """End; sessions that are attached elsewhere go on."""

    def is_up(self) -> bool:
        """Whether what the broker needs can be reached."""

    async def open(self, record: SessionRecord) -> None:
        """Begin a session, attached to this node. :raises Taken:"""

    async def resume(self, session: str, secret_hash: bytes, seq: int | None) -> Resumption | None:
        """Attach a session to this node; None where it cannot go on without a loss.

        :param seq: the last event that the client saw; None: the last one acknowledged.
        """

    async def suspend(self, session: str, now: float) -> None:
        """The socket is lost: tell the rooms, and let the resume window begin."""

    async def close(self, session: str, reason: str) -> None:
        """End a session: one ``leave`` in each room. A second time nothing happens."""

    async def join(
        self, session: str, room: str, meta: Raw, capacity: int, *, quiet: bool = False
    ) -> list[PeerEntry]:
        """Enter a room; the others as this session sees them. :raises RoomFull:

        Of a session that is in it already, another ``meta`` is told to the others (``update``).

        :param quiet: come and go untold, and be told of nobody: there only for those who are
            quiet too, and who know one's peer id.
        """

    async def leave(self, session: str, room: str, reason: str, request: str = "") -> None:
        """Leave a room. :raises NotThere: the session is not in it."""

    async def rooms_of(self, session: str) -> list[str]:
        """The rooms that a session is in."""

    async def quiet_names(self, room: str) -> list[str]:
        """The names of those who are quietly in a room, at most a thousand, in no order."""

    async def send(
        self, session: str, to: str, event: Directed, request: str = "", *, patient: bool = True
    ) -> bool:
        """Put an event into one peer's mailbox; True where its socket is there to take it.

        A repeated request gives False: when it is delivered is not known.

        :param patient: where the recipient's socket is lost, keep the event for its return;
            otherwise such a peer is not there.

        :raises NotThere: no such peer for this sender.
        :raises MailboxFull: nothing was sent; a later try may succeed.
        :raises Later: it is with the recipient's socket, and not certain to stay.
        """

    async def broadcast(self, session: str, event: Directed, request: str = "") -> bool:
        """The same for everyone who shares a room; True where all sockets are there.

        A recipient whose mailbox is full will be told ``resumed: false``.
        """

    async def acknowledge(self, session: str, seq: int) -> None:
        """Everything up to ``seq`` has arrived at the session."""

    async def reap(self, now: float) -> int:
        """End the sessions whose resume window is over; gives their number."""

    async def revoke(self, revocation: Revocation) -> None:
        """Tell every node, also one that comes later; end the user's sessions that are away.

        Those whose sockets are at a node end when it hears of it. :raises Unavailable:
        """

    async def take_events(self, most: int, lease: float) -> list[Queued]:
        """What is due for the webhooks: this node's to deliver, for so many seconds."""

    async def end_events(self, ids: Sequence[str]) -> None:
        """Events are delivered, or given up."""

    async def retry_event(self, event_id: str, delay: float) -> None:
        """An event could not be delivered: try again in so many seconds, whichever node."""

    async def nodes(self) -> list[Node]:
        """The nodes that live, this one first; empty: it stands alone. :raises Unavailable:"""

    def counts(self) -> tuple[int, int]:
        """(rooms, peers in rooms) of this node."""
