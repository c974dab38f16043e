"""Allocations over the API: listed, filtered, paged, inspected, ended; users revoked."""

import asyncio
import socket
import time

import pytest

from tests.operator_api import operator
from tests.patience import PATIENCE, until
from tests.turn.live import UDP, Client, port_of, relay
from turn.admin.journal import Journal
from turn.allocation.refusals import USUAL
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address


@pytest.fixture
async def stage():
    """A relay with two users, and its operator."""
    journal = Journal()
    users = {"alice": "pw", "bob": "pw"}
    async with relay(journal.tell, users=users) as service, operator(journal, service) as api:
        yield service, api


@pytest.fixture
async def clients(stage):
    """Makes clients of a user, each with an allocation."""
    service, _ = stage
    made: list[Client] = []

    async def client(user: str = "alice", **how) -> Client:
        one = await Client(user).connect(port_of(service, "tcp" if how else "udp"), **how)
        made.append(one)
        await one.allocate()
        return one

    yield client
    for one in made:
        one.close()


async def test_what_there_is_of_an_allocation(stage, clients):
    _, api = stage
    client = await clients()
    local = "{}:{}".format(*client.sock.getsockname())
    with socket.socket(type=socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        address = Address(*peer.getsockname())
        await client.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, 0x4001),
            (registry.XOR_PEER_ADDRESS, address),
        )
        await client.send(b"\x40\x01\x00\x05hello\x00\x00\x00")
        peer.setblocking(False)
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.get_running_loop().sock_recv(peer, 100) == b"hello"
    page = await api.get("allocations")
    assert (page["total"], page["next"]) == (1, None)
    (entry,) = page["allocations"]
    assert entry["id"] == "1"
    assert (entry["user"], entry["transport"]) == ("alice", "udp")
    assert (entry["client"], entry["client_host"]) == (local, "127.0.0.1")
    assert 590 < entry["expires_in"] <= 600
    assert (entry["sent_packets"], entry["sent_bytes"]) == (1, 5)
    assert (entry["permissions"], entry["channels"]) == (1, 1)
    details = await api.get("allocations/1")
    assert {name: details[name] for name in ("client", "relayed", "user")} == {
        name: entry[name] for name in ("client", "relayed", "user")
    }
    (route,) = details["routes"]
    assert (route["peer"], route["channel"], route["sent_bytes"]) == (str(address), 0x4001, 5)
    assert 290 < details["permitted"]["127.0.0.1"] <= 300


async def test_lists_are_filtered(stage, clients):
    _, api = stage
    await clients("alice")
    await clients("bob")
    await clients("bob", tcp=True)

    async def ids(query: str) -> list[str]:
        return [entry["id"] for entry in (await api.get(f"allocations?{query}"))["allocations"]]

    assert await ids("") == ["1", "2", "3"]
    assert await ids("user=bob") == ["2", "3"]
    assert await ids("user=bob&transport=tcp") == ["3"]
    assert await ids("client_host=127.0.0.1") == ["1", "2", "3"]
    assert await ids("client_host=127.0.0.2") == []
    assert await ids("relayed_hosts=127.0.0.1&user=alice") == ["1"]


async def test_a_list_says_how_many_there_are_of_what_is_asked_for(stage, clients):
    _, api = stage
    for user in ("alice", "bob", "bob", "alice", "bob"):
        await clients(user)

    async def counts(query: str) -> tuple[list[str], str | None, int, int]:
        page = await api.get(f"allocations?{query}")
        ids = [entry["id"] for entry in page["allocations"]]
        return ids, page["next"], page["total"], page["unfiltered"]

    assert await counts("limit=2") == (["1", "2"], "2", 5, 5)
    assert await counts("limit=2&after=4") == (["5"], None, 5, 5)
    assert await counts("user=bob&limit=2") == (["2", "3"], "3", 3, 5)
    assert await counts("user=bob&limit=2&after=3") == (["5"], None, 3, 5)
    assert await counts("user=bob&limit=3") == (["2", "3", "5"], None, 3, 5)
    assert await counts("user=bob&sort=sent_bytes&limit=1") == (["2"], None, 3, 5)
    assert await counts("user=carol") == ([], None, 0, 5)


async def test_what_there_is_most_of_comes_first(stage, clients):
    _, api = stage
    peer = Address("127.0.0.1", 9)
    for number, size in enumerate([4, 8, 0, 8]):
        client = await clients("alice" if number < 3 else "bob")
        await client.request(
            Method.CHANNEL_BIND,
            (registry.CHANNEL_NUMBER, 0x4001),
            (registry.XOR_PEER_ADDRESS, peer),
        )
        for _ in range(size):
            await client.send(b"\x40\x01\x00\x04over")
        # Answered once all of it has been read.
        await client.request(Method.CREATE_PERMISSION, (registry.XOR_PEER_ADDRESS, peer))

    async def sorted_by(query: str) -> list[tuple[str, int]]:
        page = await api.get(f"allocations?sort=sent_bytes&{query}")
        assert page["next"] is None
        return [(entry["id"], entry["sent_bytes"]) for entry in page["allocations"]]

    assert await sorted_by("limit=3") == [("2", 32), ("4", 32), ("1", 16)]
    assert await sorted_by("user=alice") == [("2", 32), ("1", 16), ("3", 0)]
    refused = await api.ask("allocations?sort=user")
    assert (refused.status, "sent_bytes" in refused.body["message"]) == (400, True)


async def test_pages_join_up_though_things_come_and_go(stage, clients):
    service, api = stage
    for _ in range(12):
        await clients()
    seen: list[str] = []
    after = ""
    for _ in range(4):
        page = await api.get(f"allocations?limit=4&after={after}")
        seen += [entry["id"] for entry in page["allocations"]]
        after = page["next"]
        if after is None:
            break
        assert (await api.ask(f"allocations/{after}", "DELETE")).status == 200
    assert seen == [str(number) for number in range(1, 13)]
    assert len(service.collections[0]._engine.table) == 10


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=0000001009999",
        f"limit={'9' * 5000}",
        "limit=x",
        "limit=-1",
        "colour=blue",
        "age=5",
        "limit=²",
        "sort=age&after=1",
    ],
)
async def test_a_query_that_is_not_understood_says_what_would_be(stage, query):
    answer = await stage[1].ask(f"allocations?{query}")
    assert answer.status == 400
    assert "limit" in answer.body["message"]


async def test_one_is_ended_by_hand(stage, clients):
    service, api = stage
    client = await clients()
    await clients()
    assert (await api.ask("allocations/1", "DELETE")).body == {"id": "1", "ended": True}
    refresh = await client.request(Method.REFRESH)
    assert refresh.get(registry.ERROR_CODE)[0] == 437
    assert (await api.ask("allocations/1", "DELETE")).status == 404
    assert service.stats.allocations_closed == {"operator": 1}
    assert service.ports_in_use == 1


async def test_a_user_is_revoked_at_once_and_comes_back_when_restored(stage, clients):
    service, api = stage
    alice = await clients("alice")
    await clients("bob")
    answer = await api.ask("revocations/alice", "PUT", {"seconds": 60})
    assert answer.body["ended"] == {"turn": 1}
    assert answer.body["everywhere"] is False  # there is no Redis
    assert [entry["user"] for entry in (await api.get("allocations"))["allocations"]] == ["bob"]
    refused = await alice.request(Method.ALLOCATE, UDP)
    assert refused.get(registry.ERROR_CODE)[0] == 403
    assert [each["user"] for each in (await api.get("revocations"))["revocations"]] == ["alice"]
    (refusal,) = (await api.get("refusals?code=403"))["refusals"]
    assert refusal["facts"]["why"] == "an operator has revoked the user"
    assert (await api.ask("revocations/alice", "DELETE")).body == {"revocations": []}
    assert (await api.ask("revocations/alice", "DELETE")).body == {"revocations": []}
    await alice.allocate()
    assert service.stats.allocations_closed == {"revoked": 1}


async def test_a_revocation_ends_by_itself(stage, clients):
    _, api = stage
    alice = await clients("alice")
    await api.ask("revocations/alice", "PUT", {"seconds": 0.05})
    ends = time.monotonic() + 0.05
    await until(lambda: time.monotonic() > ends)
    await alice.allocate()
    assert await api.get("revocations") == {"revocations": []}


async def test_reasons_that_an_operator_is_told(stage, connect):
    service, api = stage
    client = await connect(port_of(service))
    wrong = await Client("alice", "not her password").connect(port_of(service))
    nobody = await Client("mallory", "x").connect(port_of(service))
    for one in (wrong, nobody):
        await one.request(Method.ALLOCATE, UDP)
        one.close()
    await client.request(Method.REFRESH)
    await client.allocate()
    metadata = (registry.XOR_PEER_ADDRESS, Address("169.254.169.254", 80))
    await client.request(Method.CREATE_PERMISSION, metadata)
    await client.request(Method.ALLOCATE, UDP)
    found = [event["facts"] for event in (await api.get("refusals"))["refusals"]]
    told = [(each["code"], each["method"], each["user"], each["why"]) for each in found]
    assert told == [
        (437, "allocate", "alice", "this client address has an allocation already"),
        (403, "create_permission", "alice", USUAL[403]),
        (437, "refresh", "alice", USUAL[437]),
        (401, "allocate", "mallory", "there is no such user"),
        (401, "allocate", "alice",
         "the password is not the user's, or turn.secret did not make it"),
    ]  # fmt: skip
    assert found[1]["peers"] == ["169.254.169.254:80"]
    assert [each["proved"] for each in found] == [True, True, True, False, False]
    only = (await api.get("refusals?code=401&user=mallory"))["refusals"]
    assert len(only) == 1


async def test_the_first_step_of_every_client_is_no_refusal(stage, clients):
    _, api = stage
    await clients()
    assert await api.get("refusals") == {"refusals": []}


async def test_figures(stage, clients):
    service, api = stage
    await clients()
    status = await api.get("status")
    assert status["ready"]
    turn = status["services"]["turn"]
    assert (turn["allocations"], turn["created"], turn["plane"]) == (1, 1, "userspace")
    assert turn["ports"] - turn["ports_free"] == 1
    assert turn["responses"] == {"401": 1, "200": 1}
    assert f"udp 127.0.0.1:{port_of(service)}" in turn["listening"]
    assert status["process"]["largest_resident_bytes"] > 1 << 20


async def test_a_thousand_allocations_are_listed_while_packets_pass(stage):
    """Listing lets the relay breathe: between two of its steps requests are answered."""
    service, api = stage
    table = service.collections[0]._engine.table
    many = [await Client().connect(port_of(service)) for _ in range(300)]
    for client in many:
        await client.allocate()
    assert len(table) == 300
    listing = asyncio.ensure_future(api.get("allocations?limit=500"))
    reply = await many[0].request(Method.REFRESH)
    assert reply.get(registry.LIFETIME) == 600
    assert len((await listing)["allocations"]) == 300
    for client in many:
        client.close()
