"""How connections of TCP allocations (RFC 6062) end whose two ends are at two workers."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.patience import until
from tests.turn.live import settings
from tests.turn.peers import listening
from tests.turn.workers import calls
from tests.turn.workers.live import LOGS, Stage, code_of, refresh, together
from turn.codec import registry
from turn.codec.registry import Method
from turn.workers.pool import WorkerPool

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def standing_still(stage, worker):
    """A worker that does nothing for a while."""
    pid = stage.pool.pids[worker]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # that was its end
            os.kill(pid, signal.SIGCONT)


class TestEnds:
    async def test_a_client_that_is_kept_out_loses_what_it_has_claimed(self, tcp):
        """By the address of that connection, wherever its allocation's comes from."""
        control = await calls.at(tcp, 0)
        await calls.allocate(control)
        held = []
        async with (
            listening() as one,
            listening() as two,
            listening() as three,
            listening() as other,
        ):
            places = ((one, 0, "127.0.0.2"), (two, 1, "127.0.0.2"), (three, 1, ""))
            for peer, worker, source in places:
                number = await calls.connect(control, peer.address)
                await peer.next()
                held.append(await calls.at(tcp, worker, source=source))
                assert await calls.bind(held[-1], number) == 0
            tcp.reload(tcp_allocations=True, deny_clients=["127.0.0.2/32"])
            assert await together(calls.ended(held[0]), calls.ended(held[1])) == [True, True]
            assert await calls.connect(control, three.address) == -446, "this one goes on"
            number = await calls.connect(control, other.address)
            for worker in (0, 1):
                again = await calls.at(tcp, worker, source="127.0.0.2")
                assert await calls.bind(again, number) == 403

    @pytest.mark.parametrize(
        "who", ["client", "peer", "control", "refresh", "operator", "revoked", "refused"]
    )
    async def test_each_is_the_end_of_all(self, tcp, peer, who):
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call)
        if who in {"client", "peer"}:
            {"client": data.close, "peer": call.writer.close}[who]()
        elif who == "control":
            call.control.close()
        elif who == "refresh":
            assert await refresh(call.control, 0) == 0
        elif who == "operator":
            (allocations,) = tcp.pool.collections
            (found,) = (await allocations.snapshot()).values()
            await allocations.end(found)
        elif who == "revoked":
            assert await tcp.pool.revoke("alice", time.time() + 60) == 1
        else:
            tcp.reload(tcp_allocations=True, deny_peers=["127.0.0.0/8"])
        if who != "peer":
            assert await calls.ends(call.reader) == b""
        if who != "client":
            assert await calls.ended(data)
        if who in {"client", "peer"}:  # the peer may be connected with again
            number = await calls.connect_again(call.control, peer.address)
            # Where our side ended first, the kernel has these two ports wait (TIME-WAIT).
            assert number > 0 or (who == "client" and number == -447)

    async def test_a_connection_counts_wherever_it_is(self, tcp, peer):
        tcp.reload(tcp_allocations=True, max_channels=1)
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call)
        async with listening() as second:
            assert await calls.connect(call.control, second.address) == -508
            data.close()
            await calls.connect_again(call.control, second.address)

    async def test_nothing_is_left_of_them(self, tcp, peer):
        def held():
            return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in tcp.pool.pids]

        async def rounds(count):
            for turn in range(count):
                call = await calls.begin(tcp, peer)
                data = await calls.splice(tcp, call)
                if turn % 2:
                    data.close()
                    assert await calls.ends(call.reader) == b""
                else:
                    call.writer.close()
                    assert await calls.ended(data)
                assert await refresh(call.control, 0) == 0
                for client in tcp.closing:
                    client.close()
                tcp.closing.clear()

        await rounds(2)
        before = held()
        await rounds(10)
        await until(lambda: sum(held()) <= sum(before))


class TestDeath:
    async def test_of_the_worker_that_has_the_allocation(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        data = await calls.splice(tcp, call)
        unclaimed = await calls.begin(tcp, peer)
        await tcp.kill(call.owner)
        assert await calls.ends(call.reader) == b""
        assert await calls.ended(data)
        await tcp.settle()
        assert await calls.bind(await calls.at(tcp, call.other), unclaimed.number) == 400

    async def test_of_the_worker_that_has_the_client(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        await calls.splice(tcp, call)
        await tcp.kill(call.other)
        assert await calls.ends(call.reader) == b""
        number = await calls.connect_again(call.control, peer.address)
        await tcp.settle()
        call = calls.Call(call.control, number, *await peer.next())
        data = await calls.splice(tcp, call)
        await data.send(b"again")
        assert await calls.exactly(call.reader, 5) == b"again"

    async def test_while_it_is_asked(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        data = await calls.at(tcp, call.other)
        async with standing_still(tcp, call.owner):
            asking = asyncio.create_task(calls.bind(data, call.number))
            await asyncio.sleep(0.3)
            await tcp.kill(call.owner)
        assert await asking == 400
        await tcp.settle()

    async def test_one_that_does_not_answer_in_time(self, tcp, peer):
        """447, and what comes after that is closed: the client knows of no connection."""
        call = await calls.begin(tcp, peer)
        data = await calls.at(tcp, call.other)
        await data.request(Method.REFRESH)
        async with standing_still(tcp, call.owner):
            assert await calls.bind(data, call.number) == 447
            assert code_of(await data.request(Method.BINDING)) == 0
        assert await calls.ends(call.reader) == b""

    async def test_a_client_that_does_not_wait_for_the_answer(self, tcp, peer):
        call = await calls.begin(tcp, peer)
        data = await calls.at(tcp, call.other)
        await data.request(Method.REFRESH)
        async with standing_still(tcp, call.owner):
            await data.send(
                data.encode(Method.CONNECTION_BIND, (registry.CONNECTION_ID, call.number))
            )
            await asyncio.sleep(0.3)
            data.close()
        assert await calls.ends(call.reader) == b""
        assert await refresh(call.control) == 0

    @pytest.mark.parametrize("how", ["stop", "leave"])
    async def test_of_all_of_them(self, peer, connect, how):
        """A relay that ends ends its connections: another process could not go on with them."""
        pool = WorkerPool(settings(workers=2, tcp_allocations=True), LOGS)
        await pool.start()
        stage = Stage(pool, {}, connect)
        try:
            call = await calls.begin(stage, peer)
            data = await calls.splice(stage, call)
        finally:
            await getattr(pool, how)()
        assert await calls.ends(call.reader) == b""
        assert await calls.ended(data)
        for client in stage.closing:
            client.close()
