"""Nonces that the server need not remember (RFC 8489 §9.2): a time and a keyed hash of it.

```
"obMatJos2"  base64(security features, 3 bytes)  base64(time 5, port 2, MAC 14 bytes)
```
The first thirteen characters are the nonce cookie. The MAC, a keyed BLAKE2 (RFC 7693), covers time
and port and the client's host, and its key is another one for each cookie: a nonce whose features
somebody has changed on its way is none of ours.
"""

import hashlib
import hmac
from binascii import a2b_base64, b2a_base64
from enum import IntFlag

from turn.auth.proved import Span

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
        self._lifetime = lifetime
        self._cookie = COOKIE + b2a_base64(features.to_bytes(3), newline=False).decode()
        own = hashlib.sha256(f"icebroker nonce {self._cookie}".encode() + key).digest()
        self._begun = hashlib.blake2s(key=own, digest_size=MAC_BYTES)
        """With the key in it, and nothing else yet."""

    def make(self, host: str, port: int, wall: float) -> str:
        """A fresh nonce for a client; ``wall`` is Unix time in seconds.

        The port makes it another one for each of a host's sockets, as RFC 8489 §9.2.4 wants; it
        is good on all of them, since a NAT may give a client another port at any time.
        """
        head = int(wall).to_bytes(TIME_BYTES) + port.to_bytes(PORT_BYTES)
        return self._cookie + b2a_base64(head + self._mac(head, host), newline=False).decode()

    def is_fresh(self, nonce: str, host: str, wall: float) -> bool:
        """Whether a nonce is good now."""
        good = self.span(nonce, host)
        return good is not None and wall in good

    def span(self, nonce: str, host: str) -> Span | None:
        """When a nonce is good, if this server (or its twin) made it for ``host``.

        A wall clock that jumps makes a nonce stale at worst, which a client mends unseen (438).
        """
        try:
            raw = a2b_base64(nonce[COOKIE_CHARACTERS:], strict_mode=True)
        except ValueError:
            return None
        head, mac = raw[:HEAD_BYTES], raw[HEAD_BYTES:]
        is_ours = hmac.compare_digest(mac, self._mac(head, host))
        if not is_ours or not nonce.startswith(self._cookie):
            return None
        made = int.from_bytes(head[:TIME_BYTES])
        return Span(made - TOLERANCE, made + self._lifetime)

    def _mac(self, head: bytes, host: str) -> bytes:
        mac = self._begun.copy()
        mac.update(head + host.encode())
        return mac.digest()


def has_password_algorithms(nonce: str) -> bool:
    """Whether a nonce's cookie says that its server lists password algorithms."""
    if not nonce.startswith(COOKIE):
        return False
    try:
        raw = a2b_base64(nonce[len(COOKIE) : COOKIE_CHARACTERS], strict_mode=True)
    except ValueError:
        return False
    return bool(int.from_bytes(raw) & Feature.PASSWORD_ALGORITHMS)
