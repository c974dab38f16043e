"""Every message of the protocol, one class each; what is in braces there is a field here.

Application data (``meta``, ``description``, ``candidate``, ``data``) is passed on as it came.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType, field

from signaling.protocol.errors import ErrorCode, ProtocolError

MOST_NAME = 128
MOST_ROOM = 128
MOST_ID = 64
MOST_META = 4096
"""Bytes of what a peer says about itself: everyone who enters is told that of everyone."""
MOST_DEPTH = 100
"""Arrays and objects within one another. What is passed on has to be read by every parser there is,
ours too when it comes back from a store; each has a limit, and Python's varies by the caller."""
SIGNAL_PARTS = ("description", "candidate", "candidates")
"""A signal has exactly one of these."""
NULL = Raw(b"null")
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_ID)]
"""Of a request, or of a peer; lengths are in characters."""
RoomName = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_ROOM)]
PeerName = Annotated[str, msgspec.Meta(max_length=MOST_NAME)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53) - 1)]
"""A number of an event, as every client and every store can hold it."""


# Client to server ----------------------------------------------------------------------------
class Resume(msgspec.Struct):
    """Which session to go on with, and the last ``seq`` that was seen of it."""

    session: str
    secret: str
    seq: Seq


class Hello(msgspec.Struct, tag="hello"):
    """The first message of every socket."""

    token: str | None = None
    resume: Resume | None = None
    name: PeerName = ""
    room: RoomName | None = None


class Join(msgspec.Struct, tag="join"):
    """Enter a room; once more with another ``meta``, change what the others are told."""

    id: Id
    room: RoomName
    meta: Raw = NULL

    def __post_init__(self) -> None:
        if len(self.meta) > MOST_META:
            raise ValueError(f"`meta` is longer than {MOST_META} bytes")


class Leave(msgspec.Struct, tag="leave"):
    """Leave a room."""

    id: Id
    room: RoomName


class Signal(msgspec.Struct, tag="signal", gc=False):
    """WebRTC negotiation for one peer: exactly one of description, candidate, candidates."""

    id: Id
    to: Id
    description: Raw | UnsetType = UNSET
    candidate: Raw | UnsetType = UNSET
    """null means the end of candidates."""
    candidates: list[Raw] | UnsetType = UNSET
    forged: UnsetType = field(name="from", default=UNSET)
    """Nothing: it is the server who writes it."""

    def __post_init__(self) -> None:
        description, candidate = self.description is UNSET, self.candidate is UNSET
        if description + candidate + (self.candidates is UNSET) != len(SIGNAL_PARTS) - 1:
            raise ValueError("a signal has one of `description`, `candidate` and `candidates`")


class Message(msgspec.Struct, tag="message", gc=False):
    """Application data for a peer, or for everyone in the sender's rooms."""

    id: Id
    data: Raw
    to: Id | None = None
    forged: UnsetType = field(name="from", default=UNSET)
    """As a signal's."""


class Bye(msgspec.Struct, tag="bye"):
    """The call with a peer (or with everyone) is over; who says it stays in the room."""

    to: Id | None = None


class Ack(msgspec.Struct, tag="ack", gc=False):
    """Everything up to ``seq`` has arrived."""

    seq: Seq


class Ice(msgspec.Struct, tag="ice"):
    """Ask for fresh ICE servers."""

    id: Id


class Ping(msgspec.Struct, tag="ping"):
    """Is anyone there? ``t`` comes back in ``pong``."""

    t: float = 0


class PathStats(msgspec.Struct, tag="stats"):
    """Which path a call with ``peer`` takes, and its round-trip time in seconds."""

    peer: str
    path: str
    rtt: float = 0


ClientMessage = Hello | Join | Leave | Signal | Message | Bye | Ack | Ice | Ping | PathStats


# Server to client ----------------------------------------------------------------------------
class Welcome(msgspec.Struct, tag="welcome", rename="camel"):
    """The answer to ``hello``; times in seconds."""

    session: str
    secret: str
    peer: str
    resumed: bool
    resume_window: float
    heartbeat: float
    limits: dict[str, int]
    features: tuple[str, ...]


class PeerEntry(msgspec.Struct):
    """Somebody in a room; ``polite`` is the receiver's own role toward that peer."""

    id: str
    name: str
    meta: Raw
    polite: bool
    state: str


class Joined(msgspec.Struct, tag="joined", rename="camel"):
    """The answer to ``join``."""

    id: str
    room: str
    peers: list[PeerEntry]
    ice_servers: list[dict[str, Any]]
    ice_expires_at: str


class PeerEvent(msgspec.Struct, tag="peer"):
    """Of somebody in a room: join, leave, suspended, resumed, update (another ``meta``)."""

    event: str
    room: str
    id: str
    name: str
    meta: Raw
    polite: bool
    reason: str = ""
    seq: int = 0


class SignalOut(msgspec.Struct, tag="signal", omit_defaults=True, gc=False):
    """A peer's signal."""

    sender: str = field(name="from")
    description: Raw | UnsetType = UNSET
    candidate: Raw | UnsetType = UNSET
    candidates: list[Raw] | UnsetType = UNSET
    seq: int = 0


class MessageOut(msgspec.Struct, tag="message", gc=False):
    """A peer's application data."""

    sender: str = field(name="from")
    data: Raw
    seq: int = 0


class ByeOut(msgspec.Struct, tag="bye"):
    """A peer's call is over."""

    sender: str = field(name="from")
    seq: int = 0


class Jump(msgspec.Struct, tag="jump"):
    """Nothing has happened: the numbers jump here. It is acknowledged as every event is."""

    seq: int = 0


class Ok(msgspec.Struct, tag="ok", gc=False):
    """A request is done; ``status`` of a signal or message: delivered or queued."""

    id: str
    status: str


class Error(msgspec.Struct, tag="error", omit_defaults=True):
    """A request failed; without ``id`` where none could be read."""

    code: str
    message: str
    retryable: bool
    id: str | None = None


class IceOut(msgspec.Struct, tag="ice", rename="camel", omit_defaults=True):
    """Fresh ICE servers, asked for (then with ``id``) or not."""

    ice_servers: list[dict[str, Any]]
    expires_at: str
    id: str | None = None


class Goaway(msgspec.Struct, tag="goaway"):
    """The node is about to stop: be elsewhere within ``deadline`` seconds."""

    deadline: float
    reason: str


class Pong(msgspec.Struct, tag="pong"):
    """The answer to ``ping``."""

    t: float


Event = PeerEvent | SignalOut | MessageOut | ByeOut | Jump
"""What goes through mailboxes: numbered, acknowledged, replayed."""
ServerMessage = Event | Welcome | Joined | Ok | Error | IceOut | Goaway | Pong

_decoder = msgspec.json.Decoder(ClientMessage)
_encoder = msgspec.json.Encoder()


class _Envelope(msgspec.Struct):
    type: Any = None
    id: Any = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_NO_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^"\[\]{}]+')
"""Texts, and what else stands between brackets."""


def parse_untrusted(text: str) -> ClientMessage:
    """Read a client's message.

    :raises ProtocolError: and nothing else; ``id_of_untrusted`` finds the id to answer to.
    """
    try:
        message: ClientMessage = _decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _explained(text, error) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise ProtocolError(ErrorCode.BAD_MESSAGE, "the message is not JSON") from None
    if is_deep(text):
        raise ProtocolError(ErrorCode.BAD_MESSAGE, f"more than {MOST_DEPTH} levels of JSON")
    return message


def is_deep(text: str) -> bool:
    """Whether arrays and objects lie too deep within one another. :param text: valid JSON."""
    if len(text) <= 2 * MOST_DEPTH:
        return False
    opened = text.count("{")
    if "[" in text:  # seldom, and known ten times as soon as their number
        opened += text.count("[")
    if opened <= MOST_DEPTH:
        return False  # nearly every message: no more is looked at
    brackets = _NO_BRACKETS.sub("", text).replace("{", "[").replace("}", "]")
    for _ in range(MOST_DEPTH):  # each time the innermost go, all at once
        brackets = brackets.replace("[]", "")
        if not brackets:
            return False
    return True


def id_of_untrusted(text: str | bytes) -> str | None:
    """The ``id`` of a message that may be anything else but right; None where there is none."""
    try:
        found = _envelope_decoder.decode(text).id
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return found if isinstance(found, str) and len(found) <= MOST_ID else None


encode: Callable[[msgspec.Struct], bytes] = _encoder.encode
"""The text frame of a message, as it goes over the wire: UTF-8."""


TAGS: dict[type[msgspec.Struct], str] = {
    kind: str(kind.__struct_config__.tag) for kind in ClientMessage.__args__
}
"""``type`` of what a client writes."""


def _explained(text: str | bytes, error: msgspec.ValidationError) -> ProtocolError:
    try:
        kind = _envelope_decoder.decode(text).type
    except (msgspec.MsgspecError, RecursionError):
        kind = None
    if isinstance(kind, str) and kind not in TAGS.values():
        return ProtocolError(ErrorCode.UNKNOWN_TYPE, f"there is no message type {kind[:40]!r}")
    if str(error).endswith("`$.from`"):
        return ProtocolError(ErrorCode.BAD_MESSAGE, "`from` is written by the server")
    return ProtocolError(ErrorCode.BAD_MESSAGE, str(error))
