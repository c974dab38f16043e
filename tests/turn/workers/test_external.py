"""Several processes have one external address, which one of them asks for."""

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from config.section import StartError
from tests.patience import until
from tests.turn.external.mirror import mirror
from tests.turn.live import port_of, settings
from tests.turn.workers.live import LOGS, Stage
from turn.external import watch
from turn.workers.pool import WorkerPool

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST, SECOND = "203.0.113.7", "203.0.113.8"


@pytest_asyncio.fixture(loop_scope="session")
async def behind(connect, pem, monkeypatch):
    """Two workers behind a NAT, and the server that says so."""
    monkeypatch.setattr(watch, "EVERY", 0.05)
    async with mirror(FIRST) as one:
        tls = {
            "listen_tls": ["127.0.0.1:0"],
            "tls_certificate": str(pem[0]),
            "tls_key": str(pem[1]),
        }
        fixed = {"workers": 2, "external_addresses": [str(one.server)], **tls}
        made = WorkerPool(settings(**fixed), LOGS)
        await made.start()
        stage = Stage(made, fixed, connect)
        yield stage, one
        for client in stage.closing:
            client.close()
        await made.stop()


async def test_all_workers_tell_it_and_its_changes_also_one_that_is_replaced(behind):
    stage, one = behind
    pool = stage.pool
    assert {relayed.host for _, relayed in await stage.one_at_each()} == {FIRST}
    assert pool.figures().relay_addresses == [FIRST]
    (entry,) = pool.figures().external
    assert (entry.local, entry.public, entry.keeps_ports) == ("127.0.0.1", FIRST, True)
    assert "icebroker_turn_external_addresses_port_mapped" in {
        metric.name for metric in pool.collector.collect()
    }
    one.public = SECOND
    await until(lambda: pool.relay_addresses == [SECOND])
    await pool.refresh()  # what was said to the workers before has come into force
    assert {relayed.host for _, relayed in await stage.one_at_each()} == {SECOND}
    await stage.kill(0)
    await stage.settle()
    assert {relayed.host for _, relayed in await stage.one_at_each()} == {SECOND}
    # One process asks, and the only address there is.
    assert {host for host, _ in one.asked} == {"127.0.0.1"}


async def test_a_change_leaves_the_certificate_and_the_log_level_alone(behind, pem, monkeypatch):
    stage, one = behind
    told = []
    tell_all = stage.pool._crew.tell_all

    def told_all(message):
        told.append(type(message).__name__)
        tell_all(message)

    monkeypatch.setattr(stage.pool._crew, "tell_all", told_all)
    stage.pool.set_log_level("error")
    held = pem[0].read_bytes()
    pem[0].write_bytes(b"half of a cert")
    try:
        with pytest.raises(StartError):
            stage.reload()
        one.public = SECOND
        await until(lambda: stage.pool.relay_addresses == [SECOND])
    finally:
        pem[0].write_bytes(held)
    assert told == ["Level", "Reload", "Level"]
    await stage.pool.refresh()
    assert {relayed.host for _, relayed in await stage.one_at_each()} == {SECOND}


async def test_a_pool_starts_though_nobody_answers(connect, monkeypatch):
    monkeypatch.setattr(watch, "START_PATIENCE", 0.1)
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.05)
    async with mirror("") as one:
        given = settings(workers=2, external_addresses=[str(one.server)])
        pool = WorkerPool(given, LOGS)
        with capture_logs() as told:
            await pool.start()
        try:
            (line,) = [line for line in told if line["log_level"] == "warning"]
            assert line["event"] == "no STUN server tells the external address"
            assert (await (await connect(port_of(pool))).allocate()).host == "127.0.0.1"
            one.public = FIRST
            await until(lambda: pool.relay_addresses == [FIRST])
        finally:
            await pool.stop()
