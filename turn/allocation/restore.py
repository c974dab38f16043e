"""Allocations that another process began, and that this one goes on with."""

from collections.abc import Sequence
from typing import NamedTuple

from turn.allocation.allocator import Allocator
from turn.allocation.model import Allocation, Owner, Relay
from turn.allocation.record import Record, channels_of
from turn.codec.values import family_of
from turn.routes import FiveTuple, Send


class Kept(NamedTuple):
    """An allocation that can be gone on with."""

    record: Record
    relays: Sequence[Relay]
    """Its relayed addresses that could be had again, at least one."""
    send: Send
    """How its client is reached."""
    client: FiveTuple | None = None
    """Where its client is now; None: where it was."""


def restore(allocator: Allocator, kept: Sequence[Kept], now: float) -> list[Allocation]:
    """Go on with allocations, before the first message is handled."""
    allocations = [_begin(allocator, each) for each in kept]
    for allocation in allocations:
        allocation.since = now
    # Only now, as one allocation may be the peer of another.
    for allocation, each in zip(allocations, kept, strict=True):
        _permit(allocator, allocation, each.record, now)
        allocator.journal.keep(allocation)
    return allocations


def _begin(allocator: Allocator, kept: Kept) -> Allocation:
    record = kept.record
    owner = Owner(record.username, record.user, record.tenant)
    client = kept.client or record.five_tuple
    allocation = allocator.create(client, owner, kept.relays, kept.send, record.created)
    ends = {relayed.address: relayed.expires for relayed in record.relayed}
    for relayed in allocation.relayed.values():
        relayed.expires = ends[relayed.relay.address]
    allocation.keys = record.keys
    if record.ticket:
        allocator.restore_ticket(allocation, record.ticket)
    return allocation


def _permit(allocator: Allocator, allocation: Allocation, record: Record, now: float) -> None:
    """Give back permissions and channels that live, where the policy still allows them."""
    for host, expires in record.permissions.items():
        if expires > now and allocator.peers.policy.allows_host(host):
            allocation.permissions[host] = expires
    for number, channel in channels_of(record).items():
        is_ours = family_of(channel.peer) in allocation.relayed
        if channel.expires > now and is_ours and allocator.peers.policy.allows(channel.peer):
            allocation.channels[number] = channel
            allocator.peers.open_channel(allocation, number, channel.peer)
    allocator.table.schedule(allocation)
