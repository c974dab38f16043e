"""What a row of the tables is: one sentence of an RFC that binds a server, and what shows it."""

from typing import NamedTuple

# Where tests are, below tests/.
ALLOCATE = "turn/allocation/test_allocate.py::"
ALTERNATES = "turn/allocation/test_alternates.py::"
AUTHENTICATE = "turn/auth/test_authenticate.py::"
CARRYING = "turn/allocation/test_carrying.py::"
CIPHERS = "turn/transport/test_handshakes.py::"
CHANNEL = "turn/codec/test_channel.py::"
CREDENTIALS = "turn/auth/test_credentials.py::TestAccounts::"
DEMUX = "turn/codec/test_demux.py::"
DTLS = "turn/transport/test_dtls.py::"
FORWARD = "turn/relay/test_forward.py::"
HEADERS = "turn/kernel/test_headers.py::"
ICMP = "turn/relay/test_icmp.py::"
INDICATION = "turn/codec/test_indication.py::"
INTEGRITY = "turn/codec/test_integrity.py::"
MESSAGE = "turn/codec/test_message.py::"
NEGOTIATION = "turn/auth/test_negotiation.py::"
NONCE = "turn/auth/test_nonce.py::"
PERMISSIONS = "turn/allocation/test_permissions.py::"
POLICY = "turn/allocation/test_policy.py::"
PORTS = "turn/relay/test_ports.py::"
QUOTAS = "threats/test_quotas.py::"
REGISTRY = "turn/codec/test_registry.py::"
RULES = "turn/allocation/test_rules.py::"
STEPS = "turn/allocation/test_steps.py::"
STREAM = "turn/transport/test_stream.py::"
UDP = "turn/transport/test_udp.py::"
VALUES = "turn/codec/test_values.py::"


class Row(NamedTuple):
    """A MUST (MUST NOT, SHALL, REQUIRED) for a server."""

    section: str
    gist: str
    """What the sentence asks for, in our words."""
    tests: tuple[str, ...]
    """The tests that show it; none: ``ARCHITECTURE.md`` says why there is none."""


def row(section: str, gist: str, *tests: str) -> Row:
    """A row, as the tables write it."""
    return Row(section, gist, tests)
