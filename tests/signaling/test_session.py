"""Mailboxes, retries, rate limits: nothing lost, nothing twice, nothing without a bound."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from signaling.backlog import Backlog
from signaling.protocol.messages import MessageOut
from signaling.session import (
    LEAST_REMEMBERED_IDS,
    Mailbox,
    MailboxFull,
    RateLimit,
    RecentRequests,
)


def event(number=0):
    return MessageOut("peer", Raw(str(number).encode()))


def test_events_are_numbered_from_one_and_kept_until_acknowledged():
    mailbox = Mailbox(10, 10_000)
    assert [mailbox.append(event(n))[0] for n in range(3)] == [1, 2, 3]
    assert [seq for seq, _ in mailbox.after(0)] == [1, 2, 3]
    mailbox.acknowledge(2)
    assert [seq for seq, _ in mailbox.after(2)] == [3]
    assert mailbox.after(1) is None  # gone, and not to be had in silence
    assert mailbox.after(4) is None  # a number that was never given


def test_the_text_has_the_number():
    seq, text = Mailbox(10, 10_000).append(event(7))
    assert json.loads(text) == {"type": "message", "from": "peer", "data": 7, "seq": seq}


def test_an_acknowledgement_from_the_future_changes_nothing():
    mailbox = Mailbox(10, 10_000)
    mailbox.append(event())
    mailbox.acknowledge(99)
    assert len(mailbox) == 1


@pytest.mark.parametrize(("messages", "octets"), [(3, 10_000), (100, 180)])
def test_a_full_mailbox_takes_nothing_and_counts_nothing(messages, octets):
    mailbox = Mailbox(messages, octets)
    for _ in range(3):
        mailbox.append(event())
    with pytest.raises(MailboxFull):
        mailbox.append(event())
    assert mailbox.last == 3
    mailbox.acknowledge(1)
    assert mailbox.append(event())[0] == 4


def test_a_mailbox_counts_bytes_and_not_characters():
    words = MessageOut("peer", Raw(b'"' + "\N{GRINNING FACE}".encode() * 40 + b'"'))
    mailbox = Mailbox(100, 200)  # 40 characters and 60 around them; 160 bytes and 60 around them
    with pytest.raises(MailboxFull):
        mailbox.append(words)


@given(st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=60))
def test_what_was_not_acknowledged_can_always_be_had(steps):
    mailbox, sent, acknowledged = Mailbox(1000, 1 << 20), 0, 0
    for step in steps:
        if step is None:
            sent += 1
            mailbox.append(event(sent))
        else:
            mailbox.acknowledge(step)
            if step <= sent:
                acknowledged = max(acknowledged, step)
        assert [seq for seq, _ in mailbox.after(acknowledged)] == list(
            range(acknowledged + 1, sent + 1)
        )


def test_the_latest_requests_are_remembered_and_no_others_for_long():
    recent = RecentRequests()
    for number in range(3000):
        assert f"{number}" not in recent
        recent.add(f"{number}")
        # What was forgotten does not come back, so the ends of what is remembered say it all.
        assert f"{max(0, number + 1 - LEAST_REMEMBERED_IDS)}" in recent
        assert f"{number - 2 * LEAST_REMEMBERED_IDS}" not in recent


def test_a_burst_and_then_the_rate():
    limit = RateLimit(rate=50, burst=100, now=0.0)
    assert sum(limit.allow(0.0) for _ in range(200)) == 100
    assert limit.refused == 100
    assert sum(limit.allow(1.0) for _ in range(200)) == 50
    assert limit.refused == 100 - 25 + 150  # half as many are forgotten as are let through
    assert limit.allow(1.1)
    assert limit.refused == 225 - 2.5
    assert limit.allow(99.0)
    assert limit.refused == 0


def test_whoever_has_to_wait_is_told_how_long():
    limit = RateLimit(rate=50, burst=2, now=0.0)
    assert [limit.delay(0.0) for _ in range(4)] == pytest.approx([0, 0, 0.02, 0.04])
    assert limit.delay(10.0) == 0


def fill(box):
    with contextlib.suppress(MailboxFull):
        for number in range(100):
            box.append(event(number))


def test_all_mailboxes_together_have_an_end():
    """A thousand sessions that let a megabyte lie each would end the process for everybody."""
    backlog = Backlog(most_bytes=4000)
    boxes = [Mailbox(100, 1600, backlog) for _ in range(6)]
    for box in boxes:
        fill(box)
    assert backlog.bytes <= 4000 + 1600 + 5 * 200
    assert len(boxes[0]) > 3 * len(boxes[-1]) > 0
    boxes[0].acknowledge(boxes[0].last)
    boxes[1].clear()
    boxes[-1].append(event(1))
    for box in boxes:
        box.clear()
    assert backlog.bytes == 0
