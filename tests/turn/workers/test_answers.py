"""What a worker tells its pool of what happens."""

from msgspec import Struct

from turn.workers.answers import MOST_EVENTS, Events
from turn.workers.messages import Told


def test_a_flood_of_events_is_cut_and_counted():
    sent: list[Struct] = []
    now = 100.0
    events = Events(sent.append, lambda: now)
    events.tell("request_refused", {})
    assert sent == [], "nobody watches"
    events.on = True
    for _ in range(MOST_EVENTS + 7):
        events.tell("request_refused", {"code": 401})
    assert len(sent) == MOST_EVENTS
    now += 1
    events.tell("request_refused", {"code": 401})
    assert len(sent) == MOST_EVENTS + 1
    assert sent[-1] == Told("request_refused", {"code": 401}, lost=7)
