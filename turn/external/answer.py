"""What a STUN server says that we look like from outside, and what is made of it."""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from config.values import ExternalAddress
from turn.codec import registry
from turn.codec.errors import Malformed
from turn.codec.message import build, parse_untrusted
from turn.codec.registry import MessageClass, Method
from turn.codec.values import Address


class Useless(Exception):
    """The server has answered, but tells no address that could be ours."""


def question(transaction_id: bytes) -> bytes:
    """A Binding request (RFC 8489 §7)."""
    return build(Method.BINDING, MessageClass.REQUEST, transaction_id, (), fingerprint=True)


def judge_untrusted(data: bytes, transaction_id: bytes, local: str) -> Address | None:
    """Read what has come to a socket that has asked (RFC 8489 §6.3.3, §6.3.4).

    :param local: the address that the socket is bound to.
    :returns: how the socket is seen from outside; None: this is no answer to that request.
    :raises Useless: it is one, and of no use; the message says why.
    """
    try:
        message = parse_untrusted(data)
        if message.method != Method.BINDING or message.transaction_id != transaction_id:
            return None
        if message.message_class == MessageClass.ERROR:
            code, _ = message.get(registry.ERROR_CODE) or (0, "")
            raise Useless(f"refuses (error {code})")
        if message.message_class != MessageClass.SUCCESS:
            return None
        mapped = message.get(registry.XOR_MAPPED_ADDRESS)
    except Malformed:
        return None
    if mapped is None:
        raise Useless("answers without XOR-MAPPED-ADDRESS")
    if mapped.host != local and not _may_stand_for(mapped.host, local):
        raise Useless(f"says {mapped.host}, where no peer could reach us")
    return mapped


def pairs_of(
    found: Mapping[str, str], hosts: Iterable[str], written: Iterable[tuple[str, str]]
) -> list[ExternalAddress]:
    """The pairs that make 1:1 NAT of what was found: nothing for an address that is its own.

    A public address stands for one of ours only, or packets to it could not be told apart; others
    share it where a NAT hides a whole network, as it does containers. The first has it.

    :param found: local -> external address.
    :param hosts: the addresses that are relayed from, the default ones first.
    :param written: (public, local) pairs of the operator's, which win.
    """
    known = list(written)
    publics, locals_ = {public for public, _ in known}, {local for _, local in known}
    pairs = []
    for host in hosts:
        public = found.get(host, host)
        if public != host and public not in publics and host not in locals_:
            publics.add(public)
            pairs.append(ExternalAddress(public, host))
    return pairs


def _may_stand_for(host: str, local: str) -> bool:
    ip = ip_address(host)
    return (":" in host) == (":" in local) and not (
        ip.is_unspecified or ip.is_loopback or ip.is_multicast or ip.is_link_local or ip.is_reserved
    )
