"""A client that moves (RFC 8016) goes on in the kernel, and from where it was no more."""

import time

import pytest

from tests.patience import PATIENCE
from tests.turn.kernel.hosts import HostClient, Network, relay
from tests.turn.kernel.script import Stage, channel_data
from tests.turn.live import UDP
from turn.allocation.allocator import LINGER
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.stats import DropReason


class Roaming(Stage):
    """A stage whose client has a ticket."""

    ticket: bytes | None = None

    async def _open(self) -> Address:
        asked = (registry.MOBILITY_TICKET, b"")
        reply = await self.client.request(Method.ALLOCATE, UDP, asked)
        relayed = reply.get(registry.XOR_RELAYED_ADDRESS)
        self.ticket = reply.get(registry.MOBILITY_TICKET)
        assert relayed is not None
        await self.admit()
        return relayed

    def move(self) -> HostClient:
        """Have the client go on at another port; gives the one that it was."""
        before, host = self.client, self.network.client
        after = HostClient(host, (self.network.server.ipv4, 3478))
        after.nonce = before.nonce
        reply = after.do(after.request(Method.REFRESH, (registry.MOBILITY_TICKET, self.ticket)))
        assert reply.get(registry.ERROR_CODE) is None
        self.ticket = reply.get(registry.MOBILITY_TICKET)
        after.sock.settimeout(PATIENCE)
        self.client = after
        return before


def test_the_kernel_goes_on_where_the_client_is(three: Network):
    with relay(three, "kernel", mobility=True) as running:
        stage = Roaming(three, running)
        stage.warm_up()
        for _ in range(2):
            carried = stage.carried()
            stage.send(b"there")
            stage.answer(b"back")
            assert stage.collect() == ([(b"there", True)], [channel_data(b"back")])
            assert stage.carried() == carried + 2
            before = stage.move()
            before.sock.send(channel_data(b"on its way"))
            assert stage.peer.recv(100) == b"on its way", "by user space"
            stage.answer(b"after it")
            assert stage.client.sock.recv(100) == channel_data(b"after it")
            stage.warm_up()
            running.call(lambda: running.service._engine.expire(time.monotonic() + LINGER))
            before.sock.send(channel_data(b"late"))
            stage.send(b"here")
            assert stage.collect()[0] == [(b"here", True)]
            before.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                before.sock.recv(100)
            before.sock.close()
        assert running.service.stats.drops == {DropReason.NO_ALLOCATION: 2}
        stage.close()
