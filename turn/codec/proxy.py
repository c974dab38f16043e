"""PROXY protocol version 2: a proxy says whom it speaks for (HAProxy's specification, §2.2).

```
signature 12 │ version and command 1 │ family and protocol 1 │ length 2 │ addresses, then TLVs
```
"""

import struct
from typing import NamedTuple

from turn.codec.errors import Malformed
from turn.codec.values import Address, ipv4_text, ipv6_text

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEAD = struct.Struct("!12sBBH")
LOCAL, PROXY = 0x20, 0x21
ANY_FAMILY, IPV4, IPV6 = 0, 1, 2
IPV4_ADDRESSES = struct.Struct("!IIHH")
IPV6_ADDRESSES = struct.Struct("!16s16sHH")
MAPPED = bytes(10) + b"\xff\xff"
"""How an IPv4 address begins that is written as an IPv6 one (RFC 4291 §2.5.5.2)."""
MOST_BYTES = 4096
"""What a header may have, its TLVs included."""


class Header(NamedTuple):
    """What a proxy says in front of what a client sends."""

    client: Address | None
    """Whom it speaks for; None: for itself (a health check), or it cannot say."""
    size: int
    """Bytes of the header, addresses and TLVs included."""


def size_of(head: bytes | memoryview) -> int:
    """The bytes of a header whose first 16 are here. :raises Malformed: it is none."""
    if len(head) < HEAD.size:
        raise Malformed("a PROXY header that is cut off")
    signature, _, _, length = HEAD.unpack_from(head)
    if signature != SIGNATURE or HEAD.size + length > MOST_BYTES:
        raise Malformed("no PROXY header of version 2")
    return HEAD.size + int(length)


def parse_untrusted(data: bytes | memoryview) -> Header:
    """The header that ``data`` begins with. :raises Malformed: it begins with none."""
    size = size_of(data)
    if len(data) < size:
        raise Malformed("a PROXY header that is cut off")
    _, command, kind, length = HEAD.unpack_from(data)
    if command == LOCAL:
        return Header(None, size)
    if command != PROXY:
        raise Malformed("neither LOCAL nor PROXY")
    return Header(_client(kind >> 4, data[HEAD.size : HEAD.size + length]), size)


def _client(family: int, addresses: bytes | memoryview) -> Address | None:
    if family == IPV4 and len(addresses) >= IPV4_ADDRESSES.size:
        host, _, port, _ = IPV4_ADDRESSES.unpack_from(addresses)
        return Address(ipv4_text(host), port)
    if family == IPV6 and len(addresses) >= IPV6_ADDRESSES.size:
        packed, _, port, _ = IPV6_ADDRESSES.unpack_from(addresses)
        if packed.startswith(MAPPED):  # of a proxy whose one socket takes both families
            return Address(ipv4_text(int.from_bytes(packed[12:])), port)
        return Address(ipv6_text(packed), port)
    if family == ANY_FAMILY:
        return None
    raise Malformed("a PROXY header without the addresses of its family")
