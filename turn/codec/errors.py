"""What can be wrong with a message: it is no message, or it gets a STUN error code."""

from typing import Any

REASONS: dict[int, str] = {
    300: "Try Alternate",
    400: "Bad Request",
    401: "Unauthenticated",
    403: "Forbidden",
    405: "Mobility Forbidden",
    420: "Unknown Attribute",
    437: "Allocation Mismatch",
    438: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    446: "Connection Already Exists",
    447: "Connection Timeout or Failure",
    486: "Allocation Quota Reached",
    487: "Role Conflict",
    500: "Server Error",
    508: "Insufficient Capacity",
}
"""RFC 8489 §14.8, RFC 8656 §19, RFC 6062 §6.3, RFC 8016 §3.4, RFC 8445 §16."""


class Malformed(Exception):
    """Bytes of the network that are no message of ours; the text says why."""


class StunError(Exception):
    """A request fails with this error code.

    ``attributes`` are further attributes of the error response, as ``message.build`` takes them,
    and ``written`` others in front of them.
    ``why`` is for the operator, and never goes out.
    """

    def __init__(
        self,
        code: int,
        *,
        attributes: tuple[tuple[Any, Any], ...] = (),
        written: bytes = b"",
        why: str = "",
    ) -> None:
        self.code = code
        self.reason = REASONS[code]
        self.attributes = attributes
        self.written = written
        self.why = why
