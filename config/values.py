"""The value types of the settings: text as an operator writes it, checked once, typed afterwards.

Every parser raises ``ValueError`` with a sentence that says what is wrong and what would be right.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, SecretStr

type_of_network = (IPv4Network, IPv6Network)
Network = IPv4Network | IPv6Network


class Endpoint(NamedTuple):
    """An address to listen on: a host (an IP address, or a wildcard) and a port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True where no other machine can reach it."""
        return ip_address(self.host).is_loopback

    @property
    def is_wildcard(self) -> bool:
        """True for 0.0.0.0 and [::]: every address of the machine."""
        return ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class PortRange(NamedTuple):
    """Ports ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class ExternalAddress(NamedTuple):
    """What the world sees (``public``) in place of one of our addresses (``local``; "" = any)."""

    public: str
    local: str


def parse_endpoint(value: object) -> Endpoint:
    """Read "0.0.0.0:3478" or "[::]:3478"."""
    if isinstance(value, Endpoint):
        return value
    text = _text(value, 'an address and port such as "0.0.0.0:3478" or "[::]:3478"')
    host, separator, port = text.rpartition(":")
    if not separator:
        raise ValueError(f'{text!r} has no port; write "ADDRESS:PORT", for example "0.0.0.0:3478"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'{text!r}: put an IPv6 address in brackets, for example "[::]:3478"')
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address; names cannot be listened on") from None
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{port!r} is not a port (0 to 65535)")
    return Endpoint(str(address), int(port))


def parse_network(value: object) -> Network:
    """Read a CIDR such as "10.0.0.0/8", or a single address."""
    if isinstance(value, type_of_network):
        return value
    text = _text(value, 'a network such as "10.0.0.0/8"')
    try:
        return ip_network(text)
    except ValueError as error:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not a network: {error}") from None
        raise ValueError(f'{text!r} has bits beyond its mask; did you mean "{meant}"?') from None


def parse_port_range(value: object) -> PortRange:
    """Read "49152-65535"."""
    if isinstance(value, PortRange):
        return value
    text = _text(value, 'a port range such as "49152-65535"')
    match = re.fullmatch(r"(\d{1,5})\s*-\s*(\d{1,5})", text)
    if not match:
        raise ValueError(f'{text!r} is not a port range; write "FIRST-LAST", as in "49152-65535"')
    first, last = int(match[1]), int(match[2])
    if not 1024 <= first <= last <= 65535:
        raise ValueError(f"{text!r} is not a port range: it needs 1024 <= FIRST <= LAST <= 65535")
    return PortRange(first, last)


def parse_address(value: object) -> str:
    """Read one IP address; gives its canonical text."""
    text = _text(value, "an IP address")
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def parse_external(value: object) -> ExternalAddress:
    """Read "203.0.113.7" or, for one of several addresses, "203.0.113.7/10.0.0.5"."""
    if isinstance(value, ExternalAddress):
        return value
    text = _text(value, 'an address such as "203.0.113.7" or a pair "203.0.113.7/10.0.0.5"')
    public, _, local = text.partition("/")
    return ExternalAddress(parse_address(public), parse_address(local) if local else "")


def parse_duration(value: object) -> float:
    """Read seconds as a number, or "90s", "15m", "1h", "7d"; gives seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        text = _text(value, 'a time such as 3600, "90s", "15m", "1h" or "7d"')
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
        if not match:
            raise ValueError(f'{text!r} is not a time; write seconds, or "90s", "15m", "1h", "7d"')
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    if seconds < 0:
        raise ValueError("a time cannot be negative")
    return seconds


def _one_or_many(value: Any) -> Any:
    """A single value where a list may stand is a list of one; an empty text is an empty list."""
    if isinstance(value, str | SecretStr):
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return (value,) if text else ()
    return value


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected {wanted}, got {value!r}")
    return value.strip()


EndpointText = Annotated[Endpoint, BeforeValidator(parse_endpoint)]
NetworkText = Annotated[Network, BeforeValidator(parse_network)]
PortRangeText = Annotated[PortRange, BeforeValidator(parse_port_range)]
AddressText = Annotated[str, BeforeValidator(parse_address)]
ExternalText = Annotated[ExternalAddress, BeforeValidator(parse_external)]
Seconds = Annotated[float, BeforeValidator(parse_duration)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_one_or_many)]
Endpoints = Annotated[tuple[EndpointText, ...], BeforeValidator(_one_or_many)]
