"""The value types of the settings: text as an operator writes it, checked once, typed afterwards.

Every parser raises ``ValueError`` with a sentence that says what is wrong and what would be right.
"""

import json
import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

from precis_i18n import get_profile
from pydantic import AfterValidator, BeforeValidator, SecretStr

Network = IPv4Network | IPv6Network
LONGEST = 10 * 365 * 86400.0
"""Ten years, in seconds: what is longer is a mistake."""
OPAQUE_STRING = get_profile("OpaqueString")
DEFAULT_PORTS = {"http": 80, "https": 443}
STUN_PORT = 3478


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

    def meets(self, other: "Endpoint") -> bool:
        """True where only one of the two can be listened on: [::] is for IPv6 alone (V6ONLY).

        Port 0 is another one each time.
        """
        same_family = (":" in self.host) == (":" in other.host)
        same_host = self.host == other.host or self.is_wildcard or other.is_wildcard
        return self.port == other.port != 0 and same_family and same_host

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


class StunServer(NamedTuple):
    """Who is asked what the world sees in place of our addresses; a name or an IP address."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"stun:{host}:{self.port}"


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
    if isinstance(value, Network):
        return value
    text = _text(value, 'a network such as "10.0.0.0/8"')
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'{text!r} is not a network; write a CIDR such as "10.0.0.0/8"') from None
    if "/" in text and ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f'{text!r} has bits beyond its mask; did you mean "{network}"?')
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise ValueError(f"{text!r}: an IPv4 address inside IPv6 is judged as IPv4; write it so")
    return network


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


def parse_external(value: object) -> ExternalAddress | StunServer:
    """Read "203.0.113.7", for one of several addresses "203.0.113.7/10.0.0.5", or "stun:HOST"."""
    if isinstance(value, ExternalAddress | StunServer):
        return value
    text = _text(value, 'an address such as "203.0.113.7" or a pair "203.0.113.7/10.0.0.5"')
    if text.lower().startswith(("stun:", "stuns:", "turn:", "turns:")):
        return _parse_stun_server(text)
    public, _, local = text.partition("/")
    return ExternalAddress(parse_address(public), parse_address(local) if local else "")


def _parse_stun_server(text: str) -> StunServer:
    """Read a URL (RFC 7064 §3.1) of a server over UDP, which is what relaying is about."""
    host = r"(\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:/\[\]]+))"
    match = re.fullmatch(rf"(?i:stun):{host}(:(?P<port>[0-9]{{1,5}}))?", text)
    try:
        if match and 0 < int(match["port"] or STUN_PORT) <= 65535:
            name = str(IPv6Address(match["ipv6"])) if match["ipv6"] else parse_host(match["name"])
            return StunServer(name, int(match["port"] or STUN_PORT))
    except ValueError:
        pass  # a host that is none
    raise ValueError(
        f'{text!r} is no STUN server over UDP; write "stun:HOST" or "stun:HOST:PORT", for '
        'example "stun:stun.example.org:3478" (no //, an IPv6 address in brackets)'
    )


def parse_duration(value: object) -> float:
    """Read seconds as a number, or "90s", "15m", "1h", "7d"; gives seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        text = _text(value, 'a time such as 3600, "90s", "15m", "1h" or "7d"')
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text)
        if not match:
            raise ValueError(f'{text!r} is not a time; write seconds, or "90s", "15m", "1h", "7d"')
        seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
    # Compared before it is converted: an integer may be longer than a float can hold.
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"{value!r} is not a time: it needs 0 <= seconds <= {LONGEST:.0f}")
    return float(seconds)


def parse_host(value: object) -> str:
    """Read a DNS name or an IP address that clients are told, "" for none."""
    text = _text(value, 'a name such as "relay.example.org"')
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        pass
    labels = text.removesuffix(".").split(".")
    if text and not all(re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", label) for label in labels):
        raise ValueError(
            f'{text!r} is not a host; write only the name, as in "relay.example.org" '
            "(no scheme, no port)"
        )
    return text


def prepare(text: str) -> str:
    """A name or password as clients send it: OpaqueString (RFC 8265 §4.2), as RFC 8489 §9.2.2 says.

    Another way to write the same characters gives the same text.
    """
    try:
        return str(OPAQUE_STRING.enforce(text)) if text else text
    except UnicodeEncodeError:
        raise ValueError(
            "has a character that no client may send, as a control character (RFC 8265 §4.2)"
        ) from None


def _prepare_all(users: dict[str, SecretStr]) -> dict[str, SecretStr]:
    return {
        prepare(name): SecretStr(prepare(password.get_secret_value()))
        for name, password in users.items()
    }


def parse_ice_url(value: object) -> str:
    """Read a STUN or TURN URL (RFC 7064 §3.1, RFC 7065 §3.1)."""
    text = _text(value, 'a URL such as "turn:relay.example.org:3478?transport=udp"')
    host = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?"
    stun = re.fullmatch(rf"stuns?:{host}", text)
    match = stun or re.fullmatch(rf"turns?:{host}(\?transport=(udp|tcp))?", text)
    if match and int(match["port"] or 0) <= 65535:
        return text
    raise ValueError(
        f'{text!r} is not a STUN or TURN URL; write "stun:HOST:PORT" or '
        '"turn:HOST:PORT?transport=udp" (no //)'
    )


def parse_http_url(value: object) -> str:
    """Read the URL of an HTTP service that we call."""
    text = _text(value, 'a URL such as "https://app.example.org/hooks"')
    if not text:
        return text
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, named = urlsplit(""), False
    if parts.scheme not in DEFAULT_PORTS or not named or parts.fragment:
        raise ValueError(f'{text!r} is no URL for HTTP; write "https://app.example.org/hooks"')
    if parts.username is not None:
        raise ValueError("no user name in the URL, please: our requests are signed instead")
    return text


def parse_probe_url(value: object) -> str:
    """Read what a probe may try: a STUN or TURN URL, or signaling's own."""
    text = _text(value, 'a URL such as "turn:relay.example.org" or "https://rtc.example.org"')
    return parse_http_url(text) if text.startswith(("http:", "https:")) else parse_ice_url(text)


def parse_origin(value: object) -> str:
    """Read the origin of a web page as browsers send it (RFC 6454 §6.2), or "*"."""
    text = _text(value, 'an origin such as "https://app.example.org"').lower()
    if text == "*":
        return text
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in DEFAULT_PORTS or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(
            f'{text!r} is not an origin; write "https://app.example.org" '
            "(scheme, host, perhaps a port; no path)"
        )
    if not re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", parts.netloc):
        raise ValueError(f"{text!r} is not an origin; wildcards and user names cannot be in one")
    if port == DEFAULT_PORTS[parts.scheme]:
        raise ValueError(f"{text!r}: browsers leave the default port out; so must you")
    return text


# Several values in one text: an environment variable has them so, and TOML may -----------------


def read_list(value: Any) -> Any:
    """A JSON list, or values with commas between them; an empty text is none."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("[") and (found := _json(value)) is not None:
        return found
    return [part.strip() for part in value.split(",") if part.strip()]


def read_secrets(value: Any) -> Any:
    """As ``read_list``, but a secret may hold a comma: several are a JSON list and nothing else."""
    if not isinstance(value, str):
        return value
    if re.match(r'\s*\[\s*"', value) and (found := _json(value)) is not None:
        return found
    return [value] if value else []


def read_table(value: Any) -> Any:
    """A JSON object; an empty text is an empty one."""
    if not isinstance(value, str):
        return value
    found = _json(value or "{}")
    return value if found is None else found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _none_empty(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(secret.get_secret_value() for secret in secrets):
        raise ValueError("one of the secrets is empty; leave it out")
    return secrets


def _path(value: Any) -> Any:
    """TOML has no null: an empty text is no file."""
    return None if value == "" else value


def _text(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected {wanted}, got {value!r}")
    return value.strip()


_Listed = BeforeValidator(read_list)

EndpointText = Annotated[Endpoint, BeforeValidator(parse_endpoint)]
NetworkText = Annotated[Network, BeforeValidator(parse_network)]
PortRangeText = Annotated[PortRange, BeforeValidator(parse_port_range)]
AddressText = Annotated[str, BeforeValidator(parse_address)]
ExternalText = Annotated[ExternalAddress | StunServer, BeforeValidator(parse_external)]
HostText = Annotated[str, BeforeValidator(parse_host)]
OriginText = Annotated[str, BeforeValidator(parse_origin)]
HttpUrlText = Annotated[str, BeforeValidator(parse_http_url)]
IceUrlText = Annotated[str, BeforeValidator(parse_ice_url)]
ProbeUrlText = Annotated[str, BeforeValidator(parse_probe_url)]
Seconds = Annotated[float, BeforeValidator(parse_duration)]
PemFile = Annotated[Path | None, BeforeValidator(_path)]

Endpoints = Annotated[tuple[EndpointText, ...], _Listed]
Networks = Annotated[tuple[NetworkText, ...], _Listed]
Addresses = Annotated[tuple[AddressText, ...], _Listed]
ExternalAddresses = Annotated[tuple[ExternalText, ...], _Listed]
Origins = Annotated[tuple[OriginText, ...], _Listed]
IceUrls = Annotated[tuple[IceUrlText, ...], _Listed]
ProbeUrls = Annotated[tuple[ProbeUrlText, ...], _Listed]
Secrets = Annotated[
    tuple[SecretStr, ...], BeforeValidator(read_secrets), AfterValidator(_none_empty)
]
PreparedText = Annotated[str, AfterValidator(prepare)]
Passwords = Annotated[
    dict[str, SecretStr], BeforeValidator(read_table), AfterValidator(_prepare_all)
]
