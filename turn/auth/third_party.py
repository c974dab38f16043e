"""Third-party authorization: tokens of an authorization server that we share a key with.

A token (RFC 7635 §6.2) brings the key that its holder protects messages with, sealed for us:
```
length of nonce 2 │ nonce │ AEAD of: length of key 2 │ key │ issued 8 │ lifetime 4
```
The server's name is the associated data. ``issued`` is Unix time, its last 16 bits 1/64000 seconds.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from turn.codec.integrity import Integrity

LENGTH = struct.Struct("!H")
ISSUED_LIFETIME = struct.Struct("!QI")
NONCE_BYTES = range(8, 129)
"""What AES-GCM takes; RFC 5116 §5.1 has 12."""
FRACTION_BITS = 16
TOLERANCE = 5.0
"""Seconds that the two clocks may differ (RFC 7635 §7 calls for some)."""


class Grant(NamedTuple):
    """What a token gives to its holder."""

    kid: str
    """The authorization server's key; it is the holder's USERNAME as well."""
    key: bytes
    """What its messages are protected with."""
    expires: float
    """Unix time in seconds."""

    def keys(self, integrity: Integrity) -> tuple[bytes, ...]:
        """What may protect a message: the key, or as much of it as coturn and its client use."""
        used = 16 if integrity is Integrity.SHA1 else 32
        return (self.key,) if len(self.key) <= used else (self.key, self.key[:used])

    @property
    def user(self) -> str:
        """Whom the quota counts: the holder of this key; the kid is shared by all."""
        return f"{self.kid}:{hashlib.sha256(self.key).hexdigest()[:32]}"


class ThirdParty:
    """Opens tokens."""

    def __init__(self, name: str, keys: Mapping[str, bytes]) -> None:
        """Know the authorization servers.

        :param name: what they call this server; clients are told it, to ask them for a token.
        :param keys: kid -> key that is shared with one, 16 or 32 bytes (AES-GCM).
        """
        self.name = name
        self._keys = {kid: AESGCM(key) for kid, key in keys.items()}

    def knows(self, kid: str | None) -> bool:
        """Whether it is the name of one of them."""
        return kid in self._keys

    def open(self, kid: str, token: bytes, wall: float) -> Grant | None:
        """What a token gives; None: it is not for us, or its time is over or yet to come."""
        box = self._keys.get(kid)
        if box is None or len(token) < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(token)
        nonce, sealed = token[2 : 2 + size], token[2 + size :]
        if size not in NONCE_BYTES or len(nonce) != size:
            return None
        try:
            opened = box.decrypt(nonce, sealed, self.name.encode())
        except (InvalidTag, ValueError):
            return None
        return _read(kid, opened, wall)


def _read(kid: str, opened: bytes, wall: float) -> Grant | None:
    if len(opened) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack_from(opened)
    key, times = opened[2 : 2 + size], opened[2 + size :]
    if not key or len(key) != size or len(times) != ISSUED_LIFETIME.size:
        return None
    issued, lifetime = ISSUED_LIFETIME.unpack(times)
    begins = issued >> FRACTION_BITS
    expires = float(begins + lifetime)
    if not begins - TOLERANCE <= wall < expires + TOLERANCE:
        return None
    return Grant(kid, key, expires)
