"""One pool for most tests, since it takes a second to start; each test leaves it empty."""

import time

import pytest
import pytest_asyncio

from config.certificate import self_signed
from tests.turn.live import settings
from tests.turn.peers import listening
from tests.turn.workers.live import LOGS, Stage
from turn.workers.crew import Crew
from turn.workers.pool import WorkerPool


@pytest.fixture(scope="session")
def pem(tmp_path_factory):
    """A certificate and its key."""
    return self_signed(["127.0.0.1"], tmp_path_factory.mktemp("workers"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch):
    """Have a worker replaced soon: the pool of all tests sees more deaths than any other."""
    monkeypatch.setattr("turn.workers.crew.LONGEST_PAUSE", 0.2)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(pem):
    """Two workers."""
    tls = {"listen_tls": ["127.0.0.1:0"], "tls_certificate": str(pem[0]), "tls_key": str(pem[1])}
    fixed = {"workers": 2, **tls}
    made = WorkerPool(settings(**fixed), LOGS)
    await made.start()
    yield made, fixed
    await made.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(running, connect):
    """The pool with its usual settings, and whoever comes to it."""
    made, fixed = running
    stage = Stage(made, fixed, connect)
    yield stage
    for client in stage.closing:
        client.close()
    for user in ("alice", "bob"):
        await made.revoke(user, time.time() + 1)
        await made.restore(user)
    stage.reload()
    await stage.settle()


@pytest_asyncio.fixture(loop_scope="session")
async def tcp(stage):
    """The pool with TCP allocations."""
    stage.reload(tcp_allocations=True)
    return stage


@pytest_asyncio.fixture(loop_scope="session")
async def peer():
    """A peer that can be connected to."""
    async with listening() as peer:
        yield peer


@pytest.fixture
def between(monkeypatch):
    """What passes between workers."""
    messages: list[object] = []
    pass_on = Crew._pass_on

    def counted(pool, message, descriptors):
        messages.append(message)
        pass_on(pool, message, descriptors)

    monkeypatch.setattr(Crew, "_pass_on", counted)
    return messages
