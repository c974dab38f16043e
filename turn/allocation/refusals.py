"""Why a request was refused, in an operator's words; nothing of it goes out on the wire."""

from turn.allocation.model import facts_of_tenant
from turn.allocation.request import Request
from turn.codec import registry
from turn.codec.errors import Malformed, StunError
from turn.codec.integrity import Integrity
from turn.codec.registry import Method
from turn.telling import Facts

MOST_PEERS = 4
LONGEST_NAME = 128
"""Characters of a name that nobody has proved to be theirs."""
USUAL: dict[int, str] = {
    400: "an attribute is missing, wrong, or does not go with the others",
    401: "the credentials are not good",
    403: "the peer policy refuses the peer's address (turn.deny_peers, turn.allow_peers, "
    "turn.only_allowed_peers)",
    405: "the client comes from another network, and turn.mobility is off",
    420: "the client needs an attribute understood that this server does not know",
    437: "there is no allocation: it has expired, or the relay was restarted",
    440: "the relay has no address of that family (turn.relay_addresses, "
    "turn.default_address_family)",
    441: "the allocation is another user's, or was begun with another token",
    442: "only UDP is relayed (turn.tcp_allocations is off)",
    443: "the peer's address is of another family than the allocation's",
    446: "there is a connection to this peer already",
    447: "the peer did not take the TCP connection",
    508: "the relay cannot give more",
}
"""What a code means where the one who raised it said nothing closer."""


def is_first_step(request: Request, error: StunError) -> bool:
    """Whether it is how every client begins (RFC 8489 §9.2.3.1) or renews a nonce: no refusal."""
    return error.code == 438 or (error.code == 401 and request.message.integrity is Integrity.NONE)


def facts_of(request: Request, error: StunError) -> Facts:
    """Who asked for what, and why it was refused."""
    method, client = Method(request.message.method), request.client
    return {
        "code": error.code,
        "reason": error.reason,
        "method": method.name.lower(),
        "why": error.why or _usual(method, error.code),
        "user": request.identity.user if request.identity else _claimed(request),
        **facts_of_tenant(request.identity.tenant if request.identity else ""),
        "proved": request.identity is not None,
        "transport": client.transport,
        "client": str(client.client),
        "peers": _peers(request),
    }


def _usual(method: Method, code: int) -> str:
    if code == 437 and method is Method.ALLOCATE:
        return "this client address has an allocation already"
    return USUAL.get(code, "")


def _claimed(request: Request) -> str:
    try:
        name = request.message.get(registry.USERNAME) or ""
    except Malformed:
        return ""
    return name[:LONGEST_NAME]


def _peers(request: Request) -> list[str]:
    try:
        peers = request.message.get_all(registry.XOR_PEER_ADDRESS)
    except Malformed:
        return []
    return [str(peer) for peer in peers[:MOST_PEERS]]
