"""Bandwidth limits hold to the byte, whichever plane carries, or both."""

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.patience import PATIENCE
from tests.turn.kernel.hosts import Network, Relay, relay
from tests.turn.kernel.indications import IndicationStage
from tests.turn.kernel.restarts import Call, Process, bpffs
from tests.turn.kernel.script import CHANNEL, PEER_PORT, Stage, body, channel_data
from turn.bandwidth import SMALLEST, Budgets, ByteBudget
from turn.kernel.bpf import Map
from turn.kernel.buckets import Buckets
from turn.kernel.carrier import WORTH
from turn.kernel.program import shapes
from turn.stats import DropReason

SIZE = 1000
RATE = 20 * SIZE
"""Bytes a second: a bucket holds twenty packets."""
COARSE = 0.02
"""Seconds that the kernel's clock may be behind."""


@contextmanager
def staged(found: Network, kind: type[Stage] = Stage, **limits: Any) -> Iterator[Stage]:
    """A call that the kernel carries, within limits, and whose buckets are almost full."""
    with relay(found, "kernel", **limits) as running:
        stage = kind(found, running)
        try:
            stage.warm_up()
            yield stage
        finally:
            stage.close()


@pytest.fixture(name="hosts", params=["tc", "xdp"])
def hosts_fixture(request: pytest.FixtureRequest) -> tuple[Network, str]:
    """The network, and where the kernel meets packets."""
    name = "cards" if request.param == "xdp" else "three"
    return request.getfixturevalue(name), request.param


class Flood:
    """More packets than may pass; what the bound is, by the time that they took."""

    def __init__(self, rate: int = RATE) -> None:
        self.rate, self.start = rate, time.monotonic()
        self.took = 0.0

    def send(self, count: int, *ways: Callable[[bytes], object]) -> None:
        """Send so many packets each way, as fast as can be."""
        for _ in range(count):
            for way in ways:
                way(body(SIZE))
        self.took = time.monotonic() - self.start

    def is_bound(self, packets: int) -> bool:
        """Whether so many are what a bucket lets pass that was almost full at the start."""
        most = self.rate * (1 + self.took + COARSE) / SIZE
        return self.rate // SIZE - 1 <= packets <= most


def received(sock: socket.socket) -> int:
    """How many packets of the flood are there."""
    sock.settimeout(0.2)
    got = 0
    with suppress(TimeoutError, BlockingIOError):
        while True:
            got += len(sock.recv(4096)) >= SIZE
    return got


def dropped(running: Relay) -> dict[DropReason, int]:
    """What the kernel dropped."""
    found: dict[DropReason, int] = running.call(running.service._dropped)
    return {reason: count for reason, count in found.items() if count}


@pytest.mark.parametrize("kind", [Stage, IndicationStage], ids=["channel", "indications"])
def test_the_kernel_carries_what_may_pass_and_drops_the_rest(
    hosts: tuple[Network, str], kind: type[Stage]
):
    found, hook = hosts
    with staged(found, kind, max_bytes_per_second=RATE, kernel_hook=hook) as stage:
        before, flood = stage.carried(), Flood()
        flood.send(100, stage.send, stage.answer)
        there, back = received(stage.peer), received(stage.client.sock)
        assert flood.is_bound(there)
        assert flood.is_bound(back)
        assert stage.carried() - before == there + back
        assert dropped(stage.relay) == {DropReason.BANDWIDTH: 200 - there - back}
        assert not stage.relay.service.stats.drops[DropReason.BANDWIDTH]
        assert (stage.by_xdp() > 0) == (hook == "xdp")


@pytest.mark.parametrize("size", [0, 1, 16])
def test_small_packets_take_what_a_line_takes_for_one(hosts: tuple[Network, str], size: int):
    """Whichever plane: what is empty and goes to a peer is user space's, the rest the kernel's."""
    found, hook = hosts
    rate = 100 * SMALLEST
    with staged(found, max_bytes_per_second=rate, kernel_hook=hook) as stage:
        begin = time.monotonic()
        for _ in range(400):
            stage.send(body(size))
            stage.answer(body(size))
        got = [0, 0]
        for way, sock in enumerate((stage.peer, stage.client.sock)):
            sock.settimeout(0.2)
            with suppress(TimeoutError, BlockingIOError):
                while True:
                    got[way] += len(sock.recv(4096)) < SIZE
        most = 100 * (1 + time.monotonic() - begin + COARSE)
        assert min(got) >= 60
        assert max(got) <= most < 300, "it took so long that nothing is shown"


def test_both_planes_take_of_one_bucket(three: Network):
    """Half of the packets are such as the kernel leaves to user space: padded."""
    with staged(three, max_bytes_per_second=RATE) as stage:
        before, flood = stage.carried(), Flood()

        def padded(payload: bytes) -> None:
            stage.client.sock.send(channel_data(payload) + bytes(4))

        flood.send(10, padded)
        for _ in range(10):  # user space has had its turn
            assert len(stage.peer.recv(4096)) == SIZE
        flood.send(70, stage.send)
        flood.send(20, padded)

        def all_dropped() -> int:
            by_user_space = stage.relay.service.stats.drops[DropReason.BANDWIDTH]
            return by_user_space + dropped(stage.relay).get(DropReason.BANDWIDTH, 0)

        passed, deadline = 10, time.monotonic() + PATIENCE
        while passed + all_dropped() < 100:
            assert time.monotonic() < deadline
            passed += received(stage.peer)
        assert passed + all_dropped() == 100
        assert flood.is_bound(passed)
        assert 0 < stage.carried() - before <= passed - 10


def test_all_buckets_have_to_hold_enough(three: Network):
    """The one of the user is the smallest; what it refuses costs the others nothing."""
    limits: dict[str, Any] = {
        "max_bytes_per_second": RATE + RATE // 2,
        "max_bytes_per_second_per_user": RATE,
        "max_bytes_per_second_per_address": 2 * RATE,
        "max_bytes_per_second_in_all": 4 * RATE,
    }
    with staged(three, **limits) as stage:
        second = Stage(three, stage.relay, port=PEER_PORT + 1)
        second.warm_up()
        flood = Flood()
        flood.send(60, stage.send, second.send)
        passed = received(stage.peer) + received(second.peer)
        assert flood.is_bound(passed)
        assert dropped(stage.relay) == {DropReason.USER_BANDWIDTH: 120 - passed}
        second.close()


def tenants(**rates: int) -> dict[str, Any]:
    """Tenants with a user each, and what all of its users together may relay a second."""
    return {
        name: {"users": {"carol": "pw"}, "max_bytes_per_second": rate}
        for name, rate in rates.items()
    }


@contextmanager
def of_tenants(found: Network, *names: str, **limits: Any) -> Iterator[list[Stage]]:
    """Calls that the kernel carries, of a user of each of these tenants ("": of none)."""
    with relay(found, "kernel", **limits) as running:
        users = [(f"{name}/carol", "pw") if name else ("alice", "pw") for name in names]
        stages = [
            Stage(found, running, port=PEER_PORT + number, user=user, ipv6=False)
            for number, user in enumerate(users)
        ]
        try:
            for stage in stages:
                stage.warm_up()
            yield stages
        finally:
            for stage in stages:
                stage.close()


def test_a_tenants_users_share_a_bucket_in_the_kernel_and_others_do_not(hosts: tuple[Network, str]):
    found, hook = hosts
    limits = {"tenants": tenants(shop=RATE, clinic=0), "kernel_hook": hook}
    with of_tenants(found, "shop", "shop", "clinic", "", **limits) as stages:
        before, flood = stages[0].carried(), Flood()
        flood.send(60, *(stage.send for stage in stages))
        passed = [received(stage.peer) for stage in stages]
        assert flood.is_bound(passed[0] + passed[1])
        assert passed[2:] == [60, 60]
        assert stages[0].carried() - before == sum(passed)
        assert dropped(stages[0].relay) == {
            DropReason.TENANT_BANDWIDTH: 120 - passed[0] - passed[1]
        }


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_the_kernel_takes_of_every_bucket_that_there_can_be(three: Network, ipv6: bool):
    """Of five, the fifth is the smallest; what it refuses costs the others nothing."""
    limits: dict[str, Any] = {
        "max_bytes_per_second": 6 * RATE,
        "max_bytes_per_second_per_user": 5 * RATE,
        "tenants": tenants(shop=4 * RATE),
        "max_bytes_per_second_per_address": 3 * RATE,
        "max_bytes_per_second_in_all": RATE,
    }
    with relay(three, "kernel", **limits) as running:
        stage = Stage(three, running, ipv6=ipv6, user=("shop/carol", "pw"))
        stage.warm_up()
        before, flood = stage.carried(), Flood()
        flood.send(60, stage.send)
        passed = received(stage.peer)
        assert flood.is_bound(passed)
        assert stage.carried() - before == passed
        assert dropped(running) == {DropReason.TOTAL_BANDWIDTH: 60 - passed}
        route = next(iter(running.service._routes.all()))
        left = [budget.holds(3 * RATE - (passed + 8) * SIZE, time.monotonic())
                for budget in route.sending.all[:4]]  # fmt: skip
        assert left == [True] * 4
        stage.close()


def test_a_packet_between_two_clients_is_paid_by_both(three: Network):
    with staged(three, max_bytes_per_second=RATE) as stage:
        other = Stage(three, stage.relay, port=PEER_PORT + 1)
        for one, peer in ((stage, other), (other, stage)):
            one.client.sock.setblocking(False)
            one.client.do(one.bind(CHANNEL + 1, peer.relayed))
            one.client.sock.settimeout(3)
        for one, peer in ((stage, other), (other, stage)) * WORTH:
            one.client.sock.send(channel_data(body(9), CHANNEL + 1))
            assert peer.client.sock.recv(2048) == channel_data(body(9), CHANNEL + 1)
        other.warm_up()
        before = stage.carried()
        flood = Flood()
        # The other's bucket is half empty before.
        flood.send(10, other.answer)
        flood.send(60, lambda payload: stage.client.sock.send(channel_data(payload, CHANNEL + 1)))
        passed = received(other.client.sock)
        assert flood.is_bound(passed)
        assert stage.carried() - before > passed  # the one's are counted as sent
        other.close()


def test_a_limit_holds_while_the_process_is_dead(three: Network, tmp_path: Path):
    limit = ("env", f"ICEBROKER_TURN__MAX_BYTES_PER_SECOND={RATE}")
    with bpffs(tmp_path / "bpf"):
        process = Process(three, tmp_path)
        try:
            process.start(*limit)
            call = Call(three)
            call.begin()
            process.end(signal.SIGKILL)
            flood = Flood()
            flood.send(100, lambda payload: call.client.sock.send(channel_data(payload)))
            assert flood.is_bound(received(call.peer))
            process.start(*limit)
            process.wait(lambda: process.log.count('"data plane"') == 2)
            call.client.sock.setblocking(False)
            call.peer.setblocking(False)
            call.step(1)
            call.close()
        finally:
            process.stop()


# The rule itself -----------------------------------------------------------------------------


@pytest.fixture(name="memory", scope="module")
def memory_fixture(need_kernel: None) -> Iterator[Map]:
    shape = shapes()["buckets"]
    found = Map.create("buckets", shape)
    yield found
    found.close()


@given(
    rate=st.integers(1, 10**10),
    packets=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 65535), st.booleans()), max_size=40),
)
def test_shared_memory_keeps_a_bucket_by_the_same_rule(
    memory: Map, rate: int, packets: list[tuple[float, int, bool]]
):
    """A packet at each time, of each size; the bucket moves there and back in between."""
    now = time.monotonic()
    own, lent = (ByteBudget(rate, DropReason.BANDWIDTH, now) for _ in range(2))
    budgets = Budgets(lent)
    buckets = Buckets(memory)
    is_lent = False
    for later, size, wanted in packets:
        now += later
        if wanted and not is_lent:
            assert buckets.lend(budgets) is not None
        elif is_lent and not wanted:
            (full,) = (kept.full for kept in buckets._kept.values())
            buckets.take_back(budgets)
            lent.fill(full, now)  # by the clock of this test
        is_lent = wanted
        fits = own.holds(size, now)
        if fits is not lent.holds(size, now):  # where a packet fits to the byte, both may be right
            assert abs(own._tokens - size) <= 1e-6 * rate + 1
            return
        if fits:
            own.spend(size)
            lent.spend(size)
    buckets.close()


def test_a_bucket_that_workers_share_stays_in_user_space(memory: Map):
    class Shared:
        rate = 1000
        reason = DropReason.USER_BANDWIDTH

        def holds(self, size: int, now: float) -> bool:
            return True

        def spend(self, size: int) -> None:
            pass

    buckets = Buckets(memory)
    own = ByteBudget(1000, DropReason.BANDWIDTH, 0.0)

    def is_lent() -> bool:
        return own.keeper is not None

    assert buckets.lend(Budgets(own, Shared())) is None
    assert not is_lent()
    assert buckets.lend(Budgets(own), None) is not None
    assert is_lent()
    buckets.take_back(Budgets(own), None)
    assert not is_lent()
    buckets.close()
