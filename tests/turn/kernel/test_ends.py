"""Not one packet passes after the end of what allowed it, whichever plane carried the last one."""

import time

import pytest

from tests.turn.kernel.hosts import relay
from tests.turn.kernel.script import CHANNEL, Stage, body
from turn.codec import registry
from turn.codec.registry import Method
from turn.codec.values import Address


@pytest.fixture(name="stage")
def stage_fixture(three):
    with relay(three, "kernel") as running:
        stage = Stage(three, running)
        stage.send(b"first")
        stage.answer(b"first")
        stage.collect()
        yield stage
        stage.close()


def routes_of(stage):
    return list(stage.relay.service._routes.all())


def move_end(stage, seconds):
    """Let the stage's route end so many seconds from now; gives the monotonic time."""

    def move():
        end = time.monotonic() + seconds
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


def numbers(sock, clip):
    """The numbers of the packets that have arrived."""
    sock.settimeout(0.1)
    found = []
    try:
        while True:
            found.append(int.from_bytes(sock.recv(2048)[clip:], "big"))
    except (TimeoutError, BlockingIOError):
        return found


def test_the_route_is_carried_while_it_lives(stage):
    before = stage.carried()
    stage.send(body(100))
    stage.answer(body(100))
    assert stage.collect() == ([(body(100), True)], [b"\x40\x01\x00\x64" + body(100)])
    assert stage.carried() == before + 2


@pytest.mark.parametrize("asleep", [False, True], ids=["control awake", "control asleep"])
def test_an_expired_route_carries_nothing(stage, asleep):
    end = move_end(stage, 0.4)
    if asleep:  # the program has to end it alone
        stage.relay._loop.call_soon_threadsafe(time.sleep, 1.0)
    sent = stream(stage, end + 0.2)
    for sock, clip in ((stage.peer, 0), (stage.client.sock, 4)):
        arrived = numbers(sock, clip)
        assert len(arrived) > 100
        assert max(sent[number] for number in arrived) < end
    assert stage.carried() > 200


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
    assert numbers(stage.peer, 0) == []
    assert numbers(stage.client.sock, 0) == []
    assert stage.carried() == before  # and what it counted is not forgotten


def test_a_new_channel_takes_over_and_is_counted_anew(stage):
    before = stage.carried()
    stage.client.sock.setblocking(False)
    other = stage.network.peer.udp()
    stage.client.do(stage.bind(CHANNEL + 1, Address(*other.getsockname())))
    stage.client.sock.settimeout(3)
    for _ in range(3):
        stage.client.sock.send(b"\x40\x02\x00\x04abcd" + bytes(4))  # finds the neighbour
        other.recv(2048)
    stage.client.sock.send(b"\x40\x02\x00\x04abcd")
    assert other.recv(2048) == b"abcd"
    assert stage.carried() == before + 1
    other.close()


def test_the_end_moves_when_it_is_refreshed(stage):
    move_end(stage, 0.2)
    move_end(stage, 60)
    time.sleep(0.3)
    before = stage.carried()
    stage.send(body(50))
    assert stage.peer.recv(2048) == body(50)
    assert stage.carried() == before + 1


def test_a_limited_allocation_stays_within_its_limit(three):
    rate = 20_000
    with relay(three, "kernel", max_bytes_per_second=rate) as running:
        stage = Stage(three, running)
        start = time.monotonic()
        for _ in range(100):
            stage.send(body(1000))
            stage.answer(body(1000))
        took = time.monotonic() - start
        stage.peer.settimeout(0.2)
        stage.client.sock.settimeout(0.2)
        for sock in (stage.peer, stage.client.sock):
            got = 0
            try:
                while True:
                    got += len(sock.recv(2048))
            except TimeoutError:
                pass
            assert got <= rate * (1 + took + 0.5)
            assert got >= rate * 0.8
        stage.close()
