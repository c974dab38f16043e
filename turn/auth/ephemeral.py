"""Time-limited credentials that a shared secret signs (draft-uberti-behave-turn-rest-00 §2.2).

The one module that signaling uses too: it mints what the relay accepts.
"""

import base64
import hmac


def mint(secret: str, name: str, expires_at: int) -> tuple[str, str]:
    """A username ``<unix expiry>:<name>`` and its credential.

    :param name: for a tenant's user ``name_in`` the tenant, whose secret it is then.
    """
    username = f"{expires_at}:{name}"
    return username, password_of(secret, username)


def name_in(tenant: str, name: str) -> str:
    """What a tenant's user is called everywhere; "": no tenant's, and by its own name."""
    return f"{tenant}/{name}" if tenant else name


def expiry_of(username: str) -> int:
    """When a name ends that a secret signs, as Unix time; 0 for a name that does not end."""
    expiry, colon, _ = username.partition(":")
    return int(expiry[:20]) if colon and expiry.isascii() and expiry.isdigit() else 0


def password_of(secret: str, username: str) -> str:
    """base64(HMAC-SHA1(secret, username)): what every TURN server and client expects."""
    mac = hmac.digest(secret.encode(), username.encode(), "sha1")
    return base64.b64encode(mac).decode()
