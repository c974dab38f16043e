"""Nonces that the server need not remember (RFC 8489 §9.2.4): a time and a keyed hash of it."""

import base64
import binascii
import hashlib
import hmac

TIME_BYTES = 5
MAC_BYTES = 13  # 18 bytes in all: 24 characters of base64 and no padding
TOLERANCE = 60.0


class Nonces:
    """Makes and recognises nonces; each is bound to the client's address.

    The same key recognises them after a restart and on another node.
    """

    def __init__(self, key: bytes, lifetime: float) -> None:
        self._key = hashlib.sha256(b"icebroker nonce" + key).digest()
        self._lifetime = lifetime

    def make(self, host: str, wall: float) -> str:
        """A fresh nonce for a client at ``host``; ``wall`` is Unix time in seconds."""
        stamp = int(wall).to_bytes(TIME_BYTES)
        return base64.urlsafe_b64encode(stamp + self._mac(stamp, host)).decode()

    def is_fresh(self, nonce: str, host: str, wall: float) -> bool:
        """Whether this server (or its twin) made the nonce for ``host``, and not too long ago.

        A wall clock that jumps makes a nonce stale at worst, which a client mends unseen (438).
        """
        try:
            raw = base64.b64decode(nonce.encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return False
        stamp, mac = raw[:TIME_BYTES], raw[TIME_BYTES:]
        age = wall - int.from_bytes(stamp)
        return -TOLERANCE <= age <= self._lifetime and hmac.compare_digest(
            mac, self._mac(stamp, host)
        )

    def _mac(self, stamp: bytes, host: str) -> bytes:
        return hmac.digest(self._key, stamp + host.encode(), "sha256")[:MAC_BYTES]
