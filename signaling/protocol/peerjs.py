"""The PeerJS wire protocol, as its client 1.5 speaks it: JSON text frames, and names for them."""

import hashlib
import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from signaling.protocol.messages import is_deep

MOST_ID = 64
ID = re.compile(r"[A-Za-z0-9]+(?:[ _-][A-Za-z0-9]+)*")
"""What the client itself takes for an id."""
NAME = "peerjs-"
"""What the names of all these sessions begin with; none of ours does."""


class Kind(StrEnum):
    """``type`` of a frame."""

    OPEN = "OPEN"
    OFFER = "OFFER"
    ANSWER = "ANSWER"
    CANDIDATE = "CANDIDATE"
    LEAVE = "LEAVE"
    EXPIRE = "EXPIRE"
    HEARTBEAT = "HEARTBEAT"
    ERROR = "ERROR"
    ID_TAKEN = "ID-TAKEN"
    INVALID_KEY = "INVALID-KEY"


FORWARDED = frozenset({Kind.OFFER, Kind.ANSWER, Kind.CANDIDATE, Kind.LEAVE})
"""What one client writes to another."""


class ClientFrame(msgspec.Struct, gc=False):
    """What a client writes; ``src`` is the server's to say and is not read."""

    type: str
    dst: Annotated[str, msgspec.Meta(max_length=MOST_ID)] | None = None
    payload: Raw | UnsetType = UNSET


class Forwarded(msgspec.Struct, omit_defaults=True, gc=False):
    """What another client wrote, as it comes from a mailbox: the frame itself, and its number."""

    type: str
    """One of ``FORWARDED``."""
    src: str
    dst: str
    payload: Raw | UnsetType = UNSET
    seq: int = 0


_decoder = msgspec.json.Decoder(ClientFrame)


def parse_untrusted(text: str) -> ClientFrame | None:
    """Read a client's frame; None where it is none."""
    try:
        frame = _decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    return None if is_deep(text) else frame


def is_id(text: str) -> bool:
    """Whether a client may be called so."""
    return len(text) <= MOST_ID and ID.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def name_of(room: str, peer_id: str) -> str:
    """The session (and peer) that a client's id in a room stands for, on every node."""
    digest = hashlib.sha256(msgspec.json.encode([room, peer_id])).hexdigest()
    return NAME + digest[:40]


def frame(kind: Kind, **fields: Any) -> bytes:
    """A frame of the server's own."""
    return msgspec.json.encode({"type": kind, **fields})


def problem(kind: Kind, text: str) -> bytes:
    """A frame after which the client gives up; ``text`` is for people."""
    return frame(kind, payload={"msg": text})
