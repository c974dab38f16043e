"""Not one packet passes after the end of what allowed it, whichever plane carried the last one."""

import time
from contextlib import contextmanager
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.turn.kernel.hosts import relay
from tests.turn.kernel.indications import IndicationStage
from tests.turn.kernel.script import CHANNEL, Stage, body, channel_data
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address
from turn.kernel.carrier import LOOK, WORTH


@contextmanager
def staged(three, kind):
    with relay(three, "kernel") as running:
        stage = kind(three, running)
        stage.warm_up()
        try:
            yield stage
        finally:
            stage.close()


@pytest.fixture(name="stage", params=[Stage, IndicationStage], ids=["channel", "indications"])
def stage_fixture(three, request):
    with staged(three, request.param) as stage:
        yield stage


@pytest.fixture(name="bound")
def bound_fixture(three):
    with staged(three, Stage) as stage:
        yield stage


def routes_of(stage):
    return list(stage.relay.service._routes.all())


def move_end(stage, seconds):
    """Let what allows the stage's packets end so many seconds from now; gives the time."""

    def move():
        end = time.monotonic() + seconds
        for allocation in stage.relay.service._engine.table:
            for host in allocation.permissions:
                allocation.permissions[host] = end
        for route in routes_of(stage):
            stage.relay.service._routes.refresh(route, end)
        return end

    return stage.relay.call(move)


def stream(stage, until_time):
    """Packets both ways until a time; gives when each was sent."""
    sent: list[float] = []
    while (now := time.monotonic()) < until_time:
        number = len(sent).to_bytes(4, "big")
        stage.send(number)
        stage.answer(number)
        sent.append(now)
        time.sleep(0.0005)
    return sent


def numbers(sock, payload_of=bytes):
    """The numbers of the packets that have arrived."""
    sock.settimeout(0.1)
    found = []
    try:
        while True:
            found.append(int.from_bytes(payload_of(sock.recv(2048)), "big"))
    except (TimeoutError, BlockingIOError):
        return found


def test_the_route_is_carried_while_it_lives(stage):
    before = stage.carried()
    stage.send(body(100))
    stage.answer(body(100))
    at_peer, at_client = stage.collect()
    assert at_peer == [(body(100), True)]
    assert len(at_client) == 1
    assert stage.carried() == before + 2


@pytest.mark.parametrize("asleep", [False, True], ids=["control awake", "control asleep"])
def test_an_expired_route_carries_nothing(stage, asleep):
    before = stage.carried()
    end = move_end(stage, 0.4)
    if asleep:  # the program has to end it alone
        stage.relay._loop.call_soon_threadsafe(time.sleep, 1.0)
    sent = stream(stage, end + 0.2)
    in_time = sum(when < end - 0.1 for when in sent)
    assert 0 < in_time < len(sent)
    for sock, payload_of in ((stage.peer, bytes), (stage.client.sock, stage.payload_of)):
        arrived = numbers(sock, payload_of)
        assert len(arrived) >= min(in_time, 100)  # what a socket's buffer holds
        assert max(sent[number] for number in arrived) < end
    assert stage.carried() - before >= in_time


def test_refresh_with_lifetime_0_ends_it_at_once(stage):
    stage.send(b"one more")
    assert stage.peer.recv(2048) == b"one more"
    before = stage.carried()
    stage.client.sock.setblocking(False)
    reply = stage.client.do(stage.client.request(Method.REFRESH, (registry.LIFETIME, 0)))
    assert reply.get(registry.ERROR_CODE) is None
    for _ in range(50):
        stage.send(b"too late")
        stage.answer(b"too late")
    assert numbers(stage.peer) == []
    assert numbers(stage.client.sock) == []
    assert stage.carried() == before  # and what it counted is not forgotten


def test_a_new_channel_takes_over_and_is_counted_anew(bound):
    before = bound.carried()
    bound.client.sock.setblocking(False)
    other = bound.network.peer.udp()
    bound.client.do(bound.bind(CHANNEL + 1, Address(*other.getsockname())))
    bound.client.sock.settimeout(PATIENCE)
    for _ in range(WORTH):
        bound.client.sock.send(b"\x40\x02\x00\x04abcd" + bytes(4))  # finds the neighbour
        other.recv(2048)
    bound.relay.settle()
    bound.client.sock.send(b"\x40\x02\x00\x04abcd")
    assert other.recv(2048) == b"abcd"
    assert bound.carried() == before + 1
    other.close()


def test_a_channel_takes_over_from_indications(three):
    with staged(three, IndicationStage) as stage:
        stage.client.sock.setblocking(False)
        stage.client.do(stage.bind(CHANNEL, stage.peer_address))
        stage.client.sock.settimeout(PATIENCE)
        stage.send(b"late")  # on its way as the channel came: user space carries it
        assert stage.peer.recv(2048) == b"late"
        for _ in range(WORTH):
            stage.answer(body(40))
            assert stage.client.sock.recv(2048) == channel_data(body(40))
        stage.relay.settle()
        before = stage.carried()
        stage.answer(body(40))
        assert stage.client.sock.recv(2048) == channel_data(body(40))
        stage.client.sock.send(channel_data(body(40)))
        assert stage.peer.recv(2048) == body(40)
        assert stage.carried() == before + 2


@pytest.mark.parametrize("kind", [Stage, IndicationStage], ids=["channel", "indications"])
def test_a_peer_of_a_packet_or_two_is_not_worth_the_kernel(three, kind):
    with relay(three, "kernel") as running:
        stage = kind(three, running)
        plane: Any = running.service._plane
        for _ in range(2):
            stage.send(b"ping")
            stage.answer(b"pong")
        stage.collect()
        time.sleep(2 * LOOK)
        assert not running.call(lambda: len(plane._offloads))
        assert running.call(lambda: len(plane._waiting)) == 1
        stage.close()


def test_one_that_is_worth_it_has_not_all_others_looked_at_again_at_once(three, monkeypatch):
    """Else whoever makes one worth it every few milliseconds keeps the loop busy with looking."""
    monkeypatch.setattr("turn.kernel.carrier.LOOK", 60)
    with relay(three, "kernel") as running:
        stages = [Stage(three, running, port=port) for port in (5001, 5002)]
        for _ in range(WORTH):
            stages[0].answer(b"ping")
            stages[0].collect()
        plane: Any = running.service._plane

        def look():
            plane._timers["look"].cancel()
            plane._look()
            return len(plane._offloads), plane._timers["look"].when() - time.monotonic()

        offloads, later = running.call(look)
        assert (offloads, later > 30) == (1, True)
        for stage in stages:
            stage.close()


def test_the_end_moves_when_it_is_refreshed(stage):
    move_end(stage, 0.2)
    move_end(stage, 60)
    time.sleep(0.3)
    before = stage.carried()
    stage.send(body(50))
    assert stage.peer.recv(2048) == body(50)
    assert stage.carried() == before + 1
