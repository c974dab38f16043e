"""The journal keeps what is asked for most, in bounds, whatever the crowd."""

import logging

import structlog

from turn.admin.journal import (
    MOST_KEPT,
    MOST_OF_A_REASON,
    MOST_REASONS,
    MOST_WAITING,
    Journal,
    JournalHandler,
    rfc3339,
)


def a_journal() -> Journal:
    journal = Journal(lambda: 1_800_000_000.25)
    journal.switch(on=True)
    return journal


def test_a_flood_of_one_reason_does_not_push_out_another():
    journal = a_journal()
    journal.tell("request_refused", {"code": 403, "user": "carol"})
    for number in range(5000):
        journal.tell("request_refused", {"code": 401, "user": f"user {number}"})
    kept = journal.refusals()
    assert len(kept) == MOST_OF_A_REASON + 1
    assert kept[0].facts["user"] == "user 4999"
    assert kept[-1].facts == {"code": 403, "user": "carol"}
    assert kept[0].time == "2027-01-15T08:00:00.250Z"


def test_reasons_are_bounded_too():
    journal = a_journal()
    for number in range(10 * MOST_REASONS):
        journal.tell("message_refused", {"code": f"code {number}"})
    assert len(journal.refusals()) == MOST_REASONS


async def test_a_watcher_that_does_not_read_loses_the_oldest_and_hears_how_many():
    journal = a_journal()
    with journal.watch(None) as watcher:
        for number in range(MOST_WAITING + 10):
            journal.tell("allocation_created", {"allocation": str(number)})
        events, lost = await watcher.get(1)
        assert (len(events), lost) == (MOST_WAITING, 10)
        assert events[0].facts == {"allocation": "10"}
        assert await watcher.get(0.001) == ([], 0)
    assert journal.watchers == 0


async def test_a_watcher_that_comes_back_gets_what_it_missed():
    journal = a_journal()
    for number in range(1, MOST_KEPT + 100):
        journal.tell("room_joined", {"room": str(number)})
    with journal.watch(MOST_KEPT + 95) as watcher:
        events, _ = await watcher.get(1)
        assert [event.facts["room"] for event in events] == [
            str(MOST_KEPT + number) for number in (96, 97, 98, 99)
        ]


async def test_off_it_keeps_nothing():
    journal = a_journal()
    journal.tell("request_refused", {"code": 403})
    with journal.watch(None) as watcher:
        journal.switch(on=False)
        assert await watcher.get(1) == ([], 0)
        journal.tell("request_refused", {"code": 403})
    journal.switch(on=True)
    assert journal.refusals() == []


def test_warnings_of_the_log_are_kept():
    journal = a_journal()
    logger = logging.getLogger("a library")
    handler = JournalHandler(journal.tell)
    logger.addHandler(handler)
    try:
        logger.warning("it is %s", "broken")
        logger.info("all is well")
        structlog.wrap_logger(
            logger, [structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
        ).error("address gone", host="192.0.2.1")
    finally:
        logger.removeHandler(handler)
    newest, oldest = journal.errors()
    assert oldest.facts == {"level": "warning", "logger": "a library", "text": "it is broken"}
    assert newest.facts["text"] == "address gone"
    assert newest.facts["host"] == "192.0.2.1"


def test_times():
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
