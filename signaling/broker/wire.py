"""What goes to Redis and comes back, as bytes. What users wrote is JSON before it goes anywhere."""

import hashlib
import re
from typing import Any

import msgspec
from msgspec import Raw

from signaling.broker.base import Directed, Revocation, SessionRecord
from signaling.protocol.messages import Jump, PeerEntry, encode
from signaling.room import PRESENT, SUSPENDED

TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Sessions and peers; nothing else may become a part of a key."""


class _Identity(msgspec.Struct):
    """What the others in a room are told of a member, in every event."""

    room: str
    id: str
    name: str
    meta: Raw


_encoder = msgspec.json.Encoder()
_identity_decoder = msgspec.json.Decoder(_Identity)
_revocation_decoder = msgspec.json.Decoder(Revocation)
_record_decoder = msgspec.json.Decoder(SessionRecord)


def is_token(text: str) -> bool:
    """Whether a text may be a part of a key."""
    return TOKEN.fullmatch(text) is not None


def room_key(room: str) -> str:
    """The name of a room in keys: 128 bits of a hash, whatever its users call it."""
    return hashlib.sha256(room.encode()).hexdigest()[:32]


def record_bytes(record: SessionRecord) -> bytes:
    """A session's record."""
    return _encoder.encode(record)


def text_of(value: str) -> bytes:
    """A text as JSON."""
    return _encoder.encode(value)


def parse_revocation(data: bytes) -> Revocation:
    """What was revoked, as ``revoke.lua`` writes it."""
    return _revocation_decoder.decode(data)


def parse_record(data: bytes) -> SessionRecord:
    """The record that ``record_bytes`` wrote."""
    return _record_decoder.decode(data)


def identity_bytes(room: str, record: SessionRecord, meta: Raw) -> bytes:
    """A member, as the inside of a JSON object: scripts put it into the events."""
    return _encoder.encode(_Identity(room, record.peer, record.name, meta))[1:-1]


def room_of(identity: bytes) -> str:
    """The room that an identity is for."""
    return _parse_identity(identity).room


def name_of(identity: bytes) -> str:
    """The name that an identity says."""
    return _parse_identity(identity).name


def body_of(event: Directed | Jump) -> bytes:
    """An event's JSON up to where its number goes; ``seq`` is the last field of each."""
    event.seq = 1
    return encode(event)[: -len("1}")]


def roster(order: int, others: list[Any]) -> list[PeerEntry]:
    """The reply of ``join.lua`` as entries, in the order in which they joined.

    :param order: of whoever asks.
    :param others: order, 1 if suspended, identity; of each of the others in turn.
    """
    found = sorted(zip(others[::3], others[1::3], others[2::3], strict=True))
    entries = []
    for other, suspended, text in found:
        identity = _parse_identity(text)
        state = SUSPENDED if suspended else PRESENT
        entries.append(PeerEntry(identity.id, identity.name, identity.meta, order < other, state))
    return entries


def entries(reply: list[bytes]) -> list[tuple[int, bytes]]:
    """(seq, text frame) of a mailbox's entries."""
    return [(int(seq), frame) for seq, frame in zip(reply[::2], reply[1::2], strict=True)]


def _parse_identity(identity: bytes) -> _Identity:
    return _identity_decoder.decode(b"{" + identity + b"}")
