"""The record of live allocations: what one process leaves is what the next one goes on with."""

import os
import resource
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import msgspec
import pytest

from tests.conftest import need_root
from tests.turn.world import OTHER_PEER, PEER, Client, FakeRelay, World, code_of
from turn import journal
from turn.allocation.clients import Clients
from turn.allocation.model import Limits
from turn.allocation.options import NOTHING_MORE, Options
from turn.allocation.policy import PolicyRules
from turn.allocation.record import Record
from turn.allocation.restore import Kept
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.journal import FileJournal, read, write_own
from turn.routes import Transport


@pytest.fixture(name="file")
def file_fixture(tmp_path: Path) -> Path:
    return tmp_path / "allocations"


def recorded(file: Path, options: Options = NOTHING_MORE) -> World:
    """A world whose allocations are recorded."""
    world = World(options=options)
    world.engine._allocator.journal = kept = FileJournal(file)
    kept.settle()
    return world


def next_world(
    file: Path,
    before: World,
    limits: Limits | None = None,
    rules: PolicyRules | None = None,
    options: Options = NOTHING_MORE,
) -> World:
    """The world after a restart, a second later."""
    world = World(limits or Limits(), rules or PolicyRules(), options=options)
    world.monotonic, world.wall = before.monotonic + 1, before.wall + 1
    kept = [
        Kept(record, [FakeRelay(each.address, world) for each in record.relayed], print)
        for record in read(file, world.monotonic)
    ]
    world.engine.restore(kept, world.monotonic)
    return world


def come_back(world: World, client: Client) -> Client:
    """The client, who has noticed nothing."""
    back = Client(world, client.five_tuple, client.username, "pw")
    back.nonce = client.nonce
    return back


def test_a_client_goes_on_where_it_was(file: Path):
    world = recorded(file)
    client = world.client()
    relayed = client.allocate().get(registry.XOR_RELAYED_ADDRESS)
    client.bind(0x4001, PEER)
    client.permit(OTHER_PEER)
    after = next_world(file, world)
    back = come_back(after, client)
    assert back.relay.address == relayed
    back.channel_data(0x4001, b"on")
    back.send_indication(OTHER_PEER, b"and on")
    assert back.relay.sent == [(b"on", PEER), (b"and on", OTHER_PEER)]
    assert code_of(back.refresh()) == 0
    assert code_of(back.bind(0x4001, PEER)) == 0
    assert code_of(back.bind(0x4002, PEER)) == 400  # as the peer has a channel


def test_nothing_lives_longer_than_it_would_have(file: Path):
    world = recorded(file)
    client = world.client()
    client.allocate()
    client.permit(OTHER_PEER)
    client.bind(0x4001, PEER)
    world.monotonic += 298  # the permissions have two seconds left, the channel five minutes
    after = next_world(file, world)
    back = come_back(after, client)
    after.monotonic += 1.5
    back.send_indication(OTHER_PEER, b"too late")
    back.channel_data(0x4001, b"in time")
    assert back.relay.sent == [(b"in time", PEER)]
    after.sleep(300)
    assert len(after.engine.table) == 0


@pytest.mark.parametrize(
    "ending",
    [
        lambda world, client: client.refresh((registry.LIFETIME, 0)),
        lambda world, client: world.sleep(601),
    ],
    ids=["Refresh 0", "expiry"],
)
def test_what_has_ended_does_not_come_back(file: Path, ending: Callable[[World, Client], object]):
    world = recorded(file)
    client, other = world.client(), world.client()
    client.allocate()
    ending(world, client)
    other.allocate()
    after = next_world(file, world)
    assert [a.client for a in after.engine.table] == [other.five_tuple]


def test_a_client_over_tcp_is_gone_with_its_connection(file: Path):
    world = recorded(file)
    world.client(transport=Transport.TCP).allocate()
    assert read(file, world.monotonic) == []


def test_quotas_hold_for_what_came_back(file: Path):
    world = recorded(file)
    client = world.client()
    client.allocate()
    after = next_world(file, world, Limits(allocations_per_user=1))
    assert code_of(after.client(host="192.0.2.8").allocate()) == 486
    assert code_of(come_back(after, client).refresh((registry.LIFETIME, 0))) == 0
    assert code_of(after.client(host="192.0.2.8").allocate()) == 0


def test_what_the_policy_refuses_now_does_not_come_back(file: Path):
    world = recorded(file)
    client = world.client()
    client.allocate()
    client.bind(0x4001, PEER)
    client.bind(0x4002, OTHER_PEER)
    rules = PolicyRules(deny=(ip_network(f"{PEER.host}/32"),))
    back = come_back(next_world(file, world, rules=rules), client)
    back.channel_data(0x4001, b"refused")
    back.channel_data(0x4002, b"fine")
    assert back.relay.sent == [(b"fine", OTHER_PEER)]


def test_what_clients_have_that_are_kept_out_now_does_not_come_back(file: Path):
    world = recorded(file)
    out, stays = world.client(host="192.0.2.7"), world.client(host="192.0.3.7")
    for client in (out, stays):
        client.allocate()
    options = Options(clients=Clients((), (ip_network("192.0.2.0/24"),)))
    after = next_world(file, world, options=options)
    assert [allocation.client for allocation in after.engine.table] == [stays.five_tuple]
    assert code_of(come_back(after, out).refresh()) == 403


def test_two_clients_of_one_relay_are_each_others_peers_again(file: Path):
    world = recorded(file)
    one, other = world.client(), world.client()
    first, second = (c.allocate().get(registry.XOR_RELAYED_ADDRESS) for c in (one, other))
    assert first
    assert second
    one.bind(0x4001, second)
    other.bind(0x4001, first)
    after = next_world(file, world)
    come_back(after, one).channel_data(0x4001, b"hello")
    assert come_back(after, one).relay.sent == [(b"hello", second)]


def test_a_ticket_is_good_after_a_restart(file: Path):
    world = recorded(file, options=Options(mobility=True))
    client = world.client()
    ticket = client.allocate((registry.MOBILITY_TICKET, b"")).get(registry.MOBILITY_TICKET)
    after = next_world(file, world)
    after.engine._allocator.options = Options(mobility=True)
    moved = after.client(host="203.0.113.9")
    assert code_of(moved.request(Method.REFRESH, (registry.MOBILITY_TICKET, ticket))) == 0


# The file ------------------------------------------------------------------------------------


def allocated(file: Path, count: int = 3) -> tuple[World, list[Record]]:
    world = recorded(file)
    for _ in range(count):
        client = world.client()
        client.allocate()
        client.bind(0x4001, PEER)
    return world, read(file, world.monotonic)


def test_a_line_that_was_being_written_is_as_if_it_were_not(file: Path):
    world, records = allocated(file)
    whole = file.read_bytes()
    last_but_one = whole[:-1].rindex(b"\n") + 1
    for cut in (last_but_one, last_but_one + 1, last_but_one + 20, len(whole) - 1):
        file.write_bytes(whole[:cut])
        found = read(file, world.monotonic)
        assert [r.client for r in found] == [r.client for r in records]
        assert found[-1].channels == []  # its line with the channel is the one that is cut


@pytest.mark.parametrize("spoil", [b"{}", b"[1,2]", b'"x"', b"\xff\xfe", b"[" * 2000])
def test_a_line_that_means_nothing_costs_nothing_else(file: Path, spoil: bytes):
    world, records = allocated(file)
    file.write_bytes(file.read_bytes() + b"77\t" + spoil + b"\n")
    assert read(file, world.monotonic) == records


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, ["example.org", 40000]),
        (0, ["192.0.2.7", 0]),
        (1, ["", 3478]),
        (5, [["192.0.2.1", 99999, "192.0.2.1", 1e9]]),
        (5, [["192.0.2.1", -1, "192.0.2.1", 1e9]]),
        (5, [["", 50000, "192.0.2.1", 1e9]]),
        (5, [["192.0.2.1", 50000, "public", 1e9]]),
        (5, [["192.0.2.1", 50000, "192.0.2.1", 1e9], ["192.0.2.1", 50001, "192.0.2.1", 1e9]]),
        (6, {"any": 1e9}),
        (7, [[5, "192.0.2.9", 9, 1e9]]),
        (7, [[0x4001, "192.0.2.9", 70000, 1e9]]),
        (7, [[0x4001, "*", 9, 1e9]]),
    ],
)
def test_values_that_no_allocation_has_are_none(file: Path, field: int, value: object):
    world, records = allocated(file)
    last = file.read_bytes().splitlines()[-1].partition(b"\t")[2]
    spoilt = msgspec.json.decode(last)
    spoilt[field] = value
    file.write_bytes(file.read_bytes() + b"77\t" + msgspec.json.encode(spoilt) + b"\n")
    assert read(file, world.monotonic) == records


def test_a_client_has_one_allocation_whatever_the_file_says(file: Path):
    world, records = allocated(file)
    last = file.read_bytes().splitlines()[-1].partition(b"\t")[2]
    file.write_bytes(file.read_bytes() + b"77\t" + last + b"\n")
    assert read(file, world.monotonic) == records


def link(file: Path) -> None:
    moved = file.rename(file.with_name("elsewhere"))
    file.symlink_to(moved)


def give_away(file: Path) -> None:
    need_root("to give a file away")
    os.chown(file, 12345, 12345)


def queue(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda file: file.chmod(0o666), id="others may write it"),
        pytest.param(give_away, id="another user's"),
        link,
        queue,
    ],
)
def test_what_others_may_have_written_is_not_believed(file: Path, spoil: Callable[[Path], None]):
    world, records = allocated(file)
    assert records
    spoil(file)
    assert read(file, world.monotonic) == []


def test_it_is_not_written_through_what_others_have_put_there(file: Path, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("not ours")
    file.with_suffix(".new").symlink_to(victim)
    _, records = allocated(file)
    assert len(records) == 3
    assert victim.read_text() == "not ours"


def test_a_disk_that_takes_half_a_line_ends_no_call(file: Path, monkeypatch: pytest.MonkeyPatch):
    whole = os.write
    world, _ = allocated(file)
    monkeypatch.setattr("turn.journal.os.write", lambda fd, data: whole(fd, data[:20]))
    assert code_of(world.client().allocate()) == 0
    monkeypatch.undo()
    assert code_of(world.client().allocate()) == 0
    assert read(file, world.monotonic) == []


def test_another_boot_has_other_clocks(file: Path, monkeypatch: pytest.MonkeyPatch):
    world, _ = allocated(file)
    monkeypatch.setattr(journal, "here", lambda: b"icebroker 1 another boot")
    assert read(file, world.monotonic) == []


def test_no_file_is_no_allocation(file: Path):
    assert read(file, 0.0) == []


def test_the_file_does_not_grow_for_ever(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal, "SPARE_BYTES", 2000)
    world, _ = allocated(file)
    client = world.client()
    client.allocate()
    for _ in range(100):
        client.refresh()
    assert file.stat().st_size < 8000
    assert len(read(file, world.monotonic)) == 4


def test_the_last_record_stays_until_the_next_one_is_whole(file: Path):
    world, records = allocated(file)
    kept = FileJournal(file)
    for allocation in world.engine.table:
        kept.keep(allocation)
        assert read(file, world.monotonic) == records
    kept.settle()
    assert read(file, world.monotonic) == records


def test_nobody_else_may_read_it(file: Path):
    allocated(file)
    assert file.stat().st_mode & 0o077 == 0


def test_a_full_disk_ends_no_call(file: Path, monkeypatch: pytest.MonkeyPatch):
    def write(_: int, __: bytes) -> int:
        raise OSError(28, "No space left on device")

    world, _ = allocated(file)
    monkeypatch.setattr("turn.journal.os.write", write)
    assert code_of(world.client().allocate()) == 0
    assert read(file, world.monotonic) == []  # rather nothing than what is out of date


def test_what_does_not_fit_leaves_nothing_on_a_full_disk(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_own(tmp_path / "webhooks", bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_an_address_of_ipv6_comes_back_as_it_was(file: Path):
    world = recorded(file)
    client = world.client(host="2606:4700::7")
    client.allocate((registry.REQUESTED_ADDRESS_FAMILY, 2))
    client.bind(0x4001, Address("2606:4700::99", 9))
    (record,) = read(file, world.monotonic)
    assert record.five_tuple == client.five_tuple
    assert record.channels[0].host == "2606:4700::99"
