"""A process that may open no more files: what comes to it is refused, and nobody else notices."""

import asyncio
import resource
from pathlib import Path
from unittest.mock import Mock

import pytest

from config.section import StartError
from tests.descriptors import none_left
from tests.patience import PATIENCE, until
from tests.turn.live import UDP
from tests.turn.peers import listening
from tests.turn.workers import calls
from tests.turn.workers.live import allocate, code_of, permit, refresh, say, together
from turn.codec import registry
from turn.codec.registry import Method
from turn.workers import answers

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVEN_PORT = (registry.EVEN_PORT, True)
TICKET = (registry.MOBILITY_TICKET, b"")


def listed():
    """The open files of this process, where the kernel does not count them."""
    return Path("/proc/self/fd").iterdir()


def opened(pid):
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def pair_at_each(stage):
    """A client of each worker that may send to one another."""
    (one, at_one), (two, at_two) = await stage.one_at_each()
    assert await together(permit(one, at_two), permit(two, at_one)) == [0, 0]
    return one, two, at_two


class TestAtAWorker:
    async def test_a_reserved_port_is_refused(self, stage):
        stage.reload()
        one, two, at_two = await pair_at_each(stage)
        pids = stage.pool.pids
        tokens, comer = await reserved_at(stage, 0), await calls.at(stage, 1)
        before = opened(pids[1])
        with none_left(pids[1]):
            assert await allocate(comer, (registry.RESERVATION_TOKEN, tokens[0])) == 508
            assert await say(one, at_two, two, b"we go on")
        assert stage.pool.pids == pids
        assert opened(pids[1]) == before
        assert await allocate(comer, (registry.RESERVATION_TOKEN, tokens[1])) == 0
        assert [await refresh(client, 0) for client in (one, two, comer)] == [0, 0, 0]
        assert await stage.allocations() == [2, 0], "and quotas are right"

    async def test_an_allocation_that_cannot_come_along_is_over(self, stage):
        """Its sockets are lost; whoever sends to it hears that it has ended."""
        stage.reload(mobility=True, allow_peers=[])
        one, two, at_two = await pair_at_each(stage)
        pids = stage.pool.pids
        roams = await calls.at(stage, 0)
        reply = await roams.request(Method.ALLOCATE, UDP, TICKET)
        at_roams = reply.get(registry.XOR_RELAYED_ADDRESS)
        ticket = reply.get(registry.MOBILITY_TICKET)
        assert await bind(two, at_roams) == 0
        comer = await calls.at(stage, 1)
        with none_left(pids[1]):
            assert await show(comer, ticket) == 508
            assert await say(one, at_two, two, b"we go on")
        assert stage.pool.pids == pids
        assert await stage.allocations() == [1, 1]
        assert stage.pool._crew.ports_in_use("127.0.0.1") == 2
        assert await show(comer, ticket) == 400
        assert await bind(two, at_roams) == 403, "nobody relays from there"

    async def test_a_connection_with_a_peer_is_refused_and_counts_no_more(self, stage):
        stage.reload(tcp_allocations=True)
        async with listening() as peer:
            call = await calls.begin(stage, peer)
            comer = await calls.at(stage, call.other)
            pids = stage.pool.pids
            with none_left(pids[call.other]):
                assert await calls.bind(comer, call.number) == 447
            assert await call.reader.read() == b"", "nobody can have it any more"
            call.writer.close()
            number = await calls.connect_again(call.control, peer.address)
            await peer.next()
            assert await calls.bind(comer, number) == 0
        assert stage.pool.pids == pids

    async def test_a_client_that_cannot_go_where_its_allocation_is_is_told_to_begin_anew(
        self, stage
    ):
        stage.reload(tcp_allocations=True, mobility=True)
        control, comer = await calls.at(stage, 0), await calls.at(stage, 1)
        reply = await control.request(Method.ALLOCATE, (registry.REQUESTED_TRANSPORT, 6), TICKET)
        ticket = reply.get(registry.MOBILITY_TICKET)
        pids = stage.pool.pids
        with none_left(pids[1]):
            assert await show(comer, ticket) == 508
        after = await calls.at(stage, 1)
        ends = pytest.raises((EOFError, ConnectionResetError))  # nobody is there to answer it
        with none_left(pids[0]), ends:
            await show(after, ticket)
        assert stage.pool.pids == pids
        assert await refresh(control) == 0

    @pytest.mark.parametrize("kernel", ["tells", "does not tell"])
    async def test_operators_see_how_many_are_left(self, stage, monkeypatch, kernel):
        """A process that may open none cannot list its own either."""
        if kernel == "does not tell":  # before Linux 6.2
            monkeypatch.setattr(answers, "FDS", Mock(stat=lambda: Mock(st_size=0), iterdir=listed))
            assert answers.open_fds() == len(list(listed()))
            with none_left():
                assert answers.open_fds() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return
        stage.reload()
        await stage.pool.refresh()  # a worker opens its files while it takes settings in
        pid = stage.pool.pids[1]
        with none_left(pid):
            samples, soft = await stage.samples(), resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        assert samples["icebroker_turn_worker_max_fds", "1"] == soft
        assert samples["icebroker_turn_worker_open_fds", "1"] >= soft

    async def test_settings_that_cannot_be_used_yet_are_used_as_soon_as_they_can_be(self, stage):
        """The certificate is among them, which only a file can bring."""
        stage.reload()
        bob = await calls.at(stage, 1, "bob")
        with none_left(stage.pool.pids[1]):
            stage.reload(users={"carol": "pw"})
            stage.reload(users={"bob": "pw"})
            assert await allocate(bob) == 401
            stage.reload(users={"alice": "pw", "bob": "pw"})
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while await allocate(bob) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - it is asked as clients ask
            await asyncio.sleep(0.1)
        assert await refresh(bob, 0) == 0


class TestAtThePool:
    async def test_settings_are_refused_that_cannot_be_tried(self, stage):
        stage.reload()
        with none_left(), pytest.raises(StartError, match="Too many open files"):
            stage.reload(users={"bob": "pw"})

    async def test_what_one_worker_hands_another_is_refused(self, stage):
        stage.reload()
        one, two, at_two = await pair_at_each(stage)
        pids = stage.pool.pids
        tokens, comer = await reserved_at(stage, 0), await calls.at(stage, 1)
        before = opened("self")
        with none_left():
            assert await allocate(comer, (registry.RESERVATION_TOKEN, tokens[0])) == 508
            assert await say(one, at_two, two, b"we go on")
        assert stage.pool.pids == pids
        assert opened("self") == before
        assert await allocate(comer, (registry.RESERVATION_TOKEN, tokens[1])) == 0

    async def test_a_worker_that_dies_is_replaced_as_soon_as_it_can_be(self, stage):
        dead = stage.pool._workers[0]
        with none_left():
            await stage.kill(0)
            await until(lambda: "too many open files" in dead.failure.lower())
            await asyncio.sleep(0.5)  # it is tried again meanwhile
            assert "too many open files" in dead.failure.lower()
            assert stage.pool.ready() == ["worker 0 is being replaced"]
        await stage.settle()
        assert stage.pool.ready() == []


async def reserved_at(stage, worker):
    """Two tokens of a worker."""
    tokens = []
    for _ in range(2):
        client = await calls.at(stage, worker)
        reply = await client.request(Method.ALLOCATE, UDP, EVEN_PORT)
        tokens.append(reply.get(registry.RESERVATION_TOKEN))
    return tokens


async def bind(client, peer):
    """Bind a channel; gives the code of the reply."""
    number = (registry.CHANNEL_NUMBER, 0x4000)
    return code_of(
        await client.request(Method.CHANNEL_BIND, number, (registry.XOR_PEER_ADDRESS, peer))
    )


async def show(client, ticket):
    """Show a ticket; gives the code of the reply."""
    return code_of(await client.request(Method.REFRESH, (registry.MOBILITY_TICKET, ticket)))
