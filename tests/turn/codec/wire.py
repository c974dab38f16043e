"""Packets put together by hand, so that the codec is not tested against itself."""

import zlib

TRANSACTION = bytes(range(1, 13))
COOKIE = bytes.fromhex("2112a442")

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
ALLOCATE_REQUEST = 0x0003
ALLOCATE_ERROR = 0x0113
SEND_INDICATION = 0x0016
CREATE_PERMISSION_REQUEST = 0x0008


def attribute(number: int, value: bytes = b"", padding: bytes = b"\0") -> bytes:
    """One attribute with its padding."""
    return number.to_bytes(2) + len(value).to_bytes(2) + value + padding * (-len(value) % 4)


def stun(message_type: int, *attributes: bytes, transaction: bytes = TRANSACTION) -> bytes:
    """A message of these attributes; its length is right."""
    body = b"".join(attributes)
    return message_type.to_bytes(2) + len(body).to_bytes(2) + COOKIE + transaction + body


def with_fingerprint(message: bytes) -> bytes:
    """The message with the FINGERPRINT that belongs to it."""
    longer = message[:2] + (len(message) - 20 + 8).to_bytes(2) + message[4:]
    return longer + attribute(0x8028, (zlib.crc32(longer) ^ 0x5354554E).to_bytes(4))


def channel_data(channel: int, payload: bytes) -> bytes:
    """ChannelData as over UDP, without padding."""
    return channel.to_bytes(2) + len(payload).to_bytes(2) + payload
