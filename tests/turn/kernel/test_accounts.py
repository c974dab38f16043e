"""What an allocation has relayed is known to its operator, whichever plane carried it."""

import pytest

from tests.turn.kernel.hosts import relay
from tests.turn.kernel.script import Stage
from turn.codec import registry
from turn.codec.registry import Method
from turn.telling import facts_of

PAYLOAD = b"a payload of the kernel's"
COUNT = 20


@pytest.mark.parametrize("plane", ["kernel", "userspace"])
def test_an_allocation_has_all_that_it_relayed(three, plane):
    told = []
    with relay(three, plane) as running:
        stage = Stage(three, running)
        stage.warm_up()
        service = running.service
        for _ in range(COUNT):
            stage.send(PAYLOAD)
            stage.answer(PAYLOAD)
        stage.collect()
        allocations = service.collections[0]
        service._engine._allocator._tell = lambda kind, what: told.append((kind, facts_of(what)))

        def look():
            (allocation,) = service._engine.table
            return allocations.inspect(allocation, allocation.created)

        entry = running.call(look)
        in_all = running.call(lambda: service._routes.in_user_space().plus(service._carried()))
        by_kernel = running.call(service._carried).sent_packets
        stage.client.do(stage.client.request(Method.REFRESH, (registry.LIFETIME, 0)))
        stage.close()
    assert (by_kernel >= COUNT) == (plane == "kernel")
    assert in_all.sent_packets >= COUNT
    ((kind, facts),) = told
    assert (kind, facts["reason"]) == ("allocation_closed", "released")
    for what in ("sent_packets", "sent_bytes", "received_packets", "received_bytes"):
        count = getattr(in_all, what)
        assert getattr(entry, what) == getattr(entry.routes[0], what) == facts[what] == count
