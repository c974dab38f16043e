"""Settings, draining, starting and stopping of several processes."""

import asyncio
import os
import socket
import ssl

import pytest

from config.certificate import self_signed
from config.schema import LogSettings
from config.section import StartError
from tests.patience import PATIENCE, until
from tests.turn.live import port_of, settings
from tests.turn.workers.live import LOGS, allocate, refresh, together
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.transport.listeners import ListenError
from turn.workers.pool import WorkerPool

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def shown(port):
    """The certificates that new TLS clients are shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    found = set()
    for _ in range(8):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        found.add(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()
    return found


async def test_settings_reach_all_or_none(stage, pem, tmp_path):
    certificate, key = self_signed(["127.0.0.1"], tmp_path)
    clients, port = await stage.clients(10), port_of(stage.pool, "tls")
    await together(*(client.allocate() for client in clients))
    assert min(await stage.allocations()) > 0

    async def granted():
        asked = (registry.LIFETIME, 3600)
        replies = await together(*(each.request(Method.REFRESH, asked) for each in clients))
        return {reply.get(registry.LIFETIME) for reply in replies}

    old = await shown(port)
    assert len(old) == 1
    bad = settings(**stage._fixed, max_lifetime=700).model_copy(
        update={"tls_certificate": certificate}  # another one's key
    )
    with pytest.raises(StartError, match="tls_certificate"):
        stage.pool.reload(bad, LogSettings(level="debug"))
    assert stage.pool._logs == LOGS
    await stage.pool.refresh()
    assert (await shown(port), await granted()) == (old, {3600})
    stage.reload(tls_certificate=str(certificate), tls_key=str(key), max_lifetime=700)
    await stage.pool.refresh()
    new = await shown(port)
    assert await granted() == {700}
    assert len(new) == 1
    assert new.isdisjoint(old)
    # One that is started later has what the others have, whatever the files hold by now.
    key.write_text("no key any more")
    await stage.kill(0)
    await stage.settle()
    assert await shown(port) == new


async def test_all_drain_and_one_that_is_replaced_too(stage):
    clients = await stage.clients(8)
    await together(*(client.allocate() for client in clients))
    draining = asyncio.create_task(stage.pool.drain(30))
    await until(lambda: stage.pool.draining)
    assert stage.pool.ready() == ["draining"]
    assert set(await together(*map(allocate, await stage.clients(8)))) == {508}
    await stage.kill(0)
    await stage.settle()
    assert set(await together(*map(allocate, await stage.clients(8)))) == {508}
    assert not draining.done()
    await together(*(refresh(client, 0) for client in clients))
    await asyncio.wait_for(draining, PATIENCE)
    stage.pool.resume()
    assert set(await together(*map(allocate, await stage.clients(8)))) == {0}


async def test_nothing_is_left_after_the_stop(connect):
    made = WorkerPool(settings(workers=2), LOGS)
    await made.start()
    pids, port = made.pids, port_of(made)
    relayed = await (await connect(port)).allocate()
    await made.stop()
    assert made.ready() == ["not running"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid or 0, 0)
    for address in (relayed, Address("127.0.0.1", port)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(tuple(address))
    await made.stop()


async def test_a_taken_address_is_named_also_where_its_owner_would_share_it(stage):
    port = port_of(stage.pool)
    second = WorkerPool(settings(workers=2, listen=[f"127.0.0.1:{port}"]), LOGS)
    wanted = rf"the relay cannot listen on 127\.0\.0\.1:{port} \(udp\): "
    with pytest.raises(ListenError, match=wanted):
        await second.start()
    assert second.ready() == ["not running"]
    await second.stop()


async def test_what_a_worker_cannot_do_is_why_the_pool_does_not_start(monkeypatch):
    made = WorkerPool(settings(workers=2), LOGS)
    monkeypatch.setattr(
        made._crew, "_hand", lambda worker, groups: None
    )  # it finds nothing to listen on
    with pytest.raises(
        StartError, match=r"cannot listen on .*: its socket has not come from the pool"
    ):
        await made.start()
    assert made.pids == [None, None]
