"""Nonces that the server need not remember (RFC 8489 §9.2): a time and a keyed hash of it.

```
"obMatJos2"  base64(security features, 3 bytes)  base64(time 5, port 2, MAC 14 bytes)
```
The first thirteen characters are the nonce cookie. The MAC covers all that is before it and the
client's host, so a nonce whose features somebody has changed on its way is none of ours.
"""

import hashlib
import hmac
from binascii import a2b_base64, b2a_base64
from enum import IntFlag
from functools import lru_cache

COOKIE = "obMatJos2"
COOKIE_CHARACTERS = 13
TIME_BYTES, PORT_BYTES, MAC_BYTES = 5, 2, 14
HEAD_BYTES = TIME_BYTES + PORT_BYTES
TOLERANCE = 60.0


class Feature(IntFlag):
    """Security features that the cookie tells of (RFC 8489 §18.1)."""

    PASSWORD_ALGORITHMS = 0x800000
    USERNAME_ANONYMITY = 0x400000


class Nonces:
    """Makes and recognises nonces; each is bound to the client's address.

    The same key recognises them after a restart and on another node.
    """

    def __init__(self, key: bytes, lifetime: float, features: Feature) -> None:
        self._key = hashlib.sha256(b"icebroker nonce" + key).digest()
        self._lifetime = lifetime
        self._cookie = COOKIE + b2a_base64(features.to_bytes(3), newline=False).decode()

    def make(self, host: str, port: int, wall: float) -> str:
        """A fresh nonce for a client; ``wall`` is Unix time in seconds.

        The port makes it another one for each of a host's sockets, as RFC 8489 §9.2.4 wants; it
        is good on all of them, since a NAT may give a client another port at any time.
        """
        head = int(wall).to_bytes(TIME_BYTES) + port.to_bytes(PORT_BYTES)
        return self._cookie + b2a_base64(head + self._mac(head, host), newline=False).decode()

    def is_fresh(self, nonce: str, host: str, wall: float) -> bool:
        """Whether this server (or its twin) made the nonce for ``host``, and not too long ago.

        A wall clock that jumps makes a nonce stale at worst, which a client mends unseen (438).
        """
        try:
            raw = a2b_base64(nonce[COOKIE_CHARACTERS:], strict_mode=True)
        except ValueError:
            return False
        head, mac = raw[:HEAD_BYTES], raw[HEAD_BYTES:]
        age = wall - int.from_bytes(head[:TIME_BYTES])
        return (
            nonce.startswith(self._cookie)
            and -TOLERANCE <= age <= self._lifetime
            and hmac.compare_digest(mac, self._mac(head, host))
        )

    def _mac(self, head: bytes, host: str) -> bytes:
        covered = self._cookie.encode() + head + host.encode()
        return hmac.digest(self._key, covered, "sha256")[:MAC_BYTES]


def has_password_algorithms(nonce: str) -> bool:
    """Whether a nonce's cookie says that its server lists password algorithms."""
    return bool(_features_of(nonce[:COOKIE_CHARACTERS]) & Feature.PASSWORD_ALGORITHMS)


@lru_cache(maxsize=16)  # nearly always our own: 3 µs, or 0.1
def _features_of(cookie: str) -> int:
    if not cookie.startswith(COOKIE):
        return 0
    try:
        return int.from_bytes(a2b_base64(cookie[len(COOKIE) :], strict_mode=True))
    except ValueError:
        return 0
