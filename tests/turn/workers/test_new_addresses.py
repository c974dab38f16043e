"""An address that the machine gets later: all listen there soon, whatever kept one from it."""

import socket
from contextlib import contextmanager

import pytest
import pytest_asyncio

from tests.descriptors import none_left
from tests.interop.process import free_port
from tests.patience import until
from tests.turn.live import settings
from tests.turn.workers.live import LOGS, Stage
from turn.codec.registry import MessageClass, Method
from turn.workers import pool
from turn.workers.messages import Missing
from turn.workers.pool import WorkerPool

pytestmark = pytest.mark.asyncio(loop_scope="session")

HERE, NEW = "127.0.0.1", "127.0.0.2"
MANY = 16
"""Clients: that all of them are one worker's is not to be expected."""


@pytest_asyncio.fixture(loop_scope="session")
async def wildcard(connect, monkeypatch):
    """Two workers at every address of a machine that has one."""
    port = free_port()
    fixed = {"workers": 2, "listen": [f"0.0.0.0:{port}"], "relay_addresses": [HERE]}
    monkeypatch.setattr(pool, "local_addresses", lambda: [HERE])
    made = WorkerPool(settings(**fixed), LOGS)
    await made.start()
    yield Stage(made, fixed, connect), port
    await made.stop()


@contextmanager
def taken(port):
    """Another program has the port at the new address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((NEW, port))
        yield


async def has(stage, monkeypatch, *addresses):
    """The machine has these addresses; every worker has heard of it, and tried."""
    monkeypatch.setattr(pool, "local_addresses", lambda: list(addresses))
    stage.pool._follow_addresses()
    await stage.pool.refresh()


async def opened(stage):
    """The pool has its sockets there; what comes before the workers take them waits in these."""
    await until(lambda: stage.pool._crew._groups.listened([NEW]))


async def answered(connect, port, host):
    """Have many clients ask there, of whom each worker has some: each gets its answer."""
    for _ in range(MANY):
        client = await connect(port, host=host)
        assert (await client.request(Method.BINDING)).message_class == MessageClass.SUCCESS


@pytest.mark.parametrize("who", ["a worker", "the pool"])
async def test_who_had_no_descriptors_listens_as_soon_as_it_can(
    wildcard, connect, monkeypatch, who
):
    stage, port = wildcard
    pids = stage.pool.pids
    with none_left(pids[1] if who == "a worker" else None):
        await has(stage, monkeypatch, HERE, NEW)
    await opened(stage)
    await answered(connect, port, NEW)
    assert stage.pool.pids == pids


async def test_a_worker_that_dies_is_replaced_though_an_address_is_taken(
    wildcard, connect, monkeypatch
):
    stage, port = wildcard
    with taken(port):
        await has(stage, monkeypatch, HERE, NEW)
        await stage.kill(1)
        await stage.settle()
        await answered(connect, port, HERE)
        assert stage.pool._crew._groups.listened([HERE, NEW]) == [HERE]
    await opened(stage)
    await answered(connect, port, NEW)


async def test_of_an_address_that_is_gone_nobody_keeps_what_came_twice(wildcard, monkeypatch):
    stage, port = wildcard
    await has(stage, monkeypatch, HERE, NEW)
    crew = stage.pool._crew
    for worker in crew.workers:  # each asks while what it is given is on its way
        crew._hand_again(worker, Missing("udp", NEW, port))
    await has(stage, monkeypatch, HERE)
    with taken(port):
        assert stage.pool.ready() == []
