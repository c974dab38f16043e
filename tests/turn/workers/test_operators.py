"""What operators see and do of several processes is what they would of one."""

import pytest
import pytest_asyncio

from tests.operator_api import operator
from tests.patience import until
from tests.turn.live import Client, port_of
from tests.turn.workers.live import allocate, permit, refresh, together
from turn.admin.journal import Journal
from turn.codec.values import Address
from turn.workers.messages import STEP

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def api(stage, monkeypatch):
    """The admin API of the pool, with an operator who watches."""
    journal = Journal()
    monkeypatch.setattr(stage.pool, "_journal", journal)
    async with operator(journal, stage.pool) as api:
        stage.reload()
        await stage.pool.refresh()
        yield api
    stage.reload()


async def test_allocations_of_all_are_listed_inspected_and_ended(stage, api):
    clients = await stage.clients(12)
    relayed = await together(*(client.allocate() for client in clients))
    assert await permit(clients[0], Address("127.0.0.1", 9)) == 0
    page = await api.get("allocations?limit=5")
    assert (page["total"], len(page["allocations"])) == (12, 5)
    listed = (await api.get("allocations"))["allocations"]
    assert {int(entry["id"]) % STEP for entry in listed} == {0, 1}
    assert {text for entry in listed for text in entry["relayed"]} == set(map(str, relayed))
    (mine,) = [entry for entry in listed if entry["relayed"] == [str(relayed[0])]]
    assert set((await api.get(f"allocations/{mine['id']}"))["permitted"]) == {"127.0.0.1"}
    assert (await api.ask(f"allocations/{mine['id']}", "DELETE")).body["ended"]
    assert (await api.ask(f"allocations/{mine['id']}")).status == 404
    assert await together(*map(refresh, clients)) == [437] + [0] * 11
    figures = (await api.get("status"))["services"]["turn"]
    assert figures["allocations"] == 11
    assert figures["plane"] == "userspace"


async def test_a_revocation_reaches_all_also_those_who_come_later(stage, api):
    stage.reload(users={"alice": "pw", "bob": "pw"})
    clients = [Client("bob") for _ in range(12)]
    for client in clients:
        await client.connect(port_of(stage.pool))
    assert set(await together(*map(allocate, clients))) == {0}
    revoked = (await api.ask("revocations/bob", "PUT", {"seconds": 600})).body
    assert revoked["ended"] == {"turn": 12}
    assert set(await together(*map(allocate, clients))) == {403}
    await stage.kill(0)
    await stage.settle()
    assert set(await together(*map(allocate, clients))) == {403}
    await api.ask("revocations/bob", "DELETE")
    assert set(await together(*map(allocate, clients))) == {0}
    for client in clients:
        client.close()


async def test_what_happens_at_the_workers_is_told_while_somebody_watches(stage, api):
    (client,) = await stage.clients(1)
    assert await refresh(client) == 437
    await client.allocate()
    await stage.pool.refresh()
    (refusal,) = (await api.get("refusals"))["refusals"]
    assert refusal["facts"]["code"] == 437
    assert refusal["facts"]["client"] == str(Address(*client.sock.getsockname()))
    kinds = [event.kind for event in stage.pool._journal._recent]
    assert "allocation_created" in kinds


async def test_numbers_are_given_once_also_after_a_death(stage, api):
    before = set()
    for client in await stage.clients(12):
        await client.allocate()
    before |= {entry["id"] for entry in (await api.get("allocations"))["allocations"]}
    await stage.kill(1)
    await stage.settle()
    for client in await stage.clients(12):
        await client.allocate()
    after = {entry["id"] for entry in (await api.get("allocations"))["allocations"]}
    survivors = {name for name in before if int(name) % STEP == 0}
    assert before & after == survivors
    await until(lambda: stage.pool.ready() == [])
