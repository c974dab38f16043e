"""The ledger in shared memory, and the books that workers keep in it together."""

import mmap
import os
import random
import signal
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from turn.allocation.books import OwnBooks
from turn.codec.values import Address
from turn.stats import DropReason
from turn.workers.books import SharedBooks, SharedPlaces, forget_strangers
from turn.workers.ledger import Full, Ledger
from turn.workers.memory import Memory

SECRET = b"s" * 32
ALICE, BOB = ("user", "alice"), ("user", "bob")
RELAYED = Address("192.0.2.1", 50000)


@pytest.fixture
def memory():
    made = Memory.create(3)
    yield made
    made.close()


@pytest.fixture
def ledger(memory):
    return Ledger(memory, SECRET)


@pytest.fixture
def told():
    return []


@pytest.fixture
def books(ledger, told):
    """Those of three workers."""
    return [SharedBooks(ledger, worker, lambda *gone: told.append(gone)) for worker in range(3)]


class TestQuotas:
    def test_what_others_have_counts(self, books):
        assert books[0].take({ALICE: 2}, {"user": 3}) == ""
        assert books[1].take({ALICE: 2}, {"user": 3}) == "user"
        assert books[1].take({ALICE: 1}, {"user": 3}) == ""
        assert books[2].take({ALICE: 1}, {"user": 3}) == "user"
        assert books[2].take({ALICE: 1}) == "", "no limit"

    def test_all_or_nothing(self, books):
        books[0].take({BOB: 1})
        wanted = {ALICE: 1, BOB: 1}, {"user": 1}
        for each in (*books, OwnBooks()):
            if isinstance(each, OwnBooks):
                each.take({BOB: 1})
            assert each.take(*wanted) == "user"
            assert not each.has(ALICE)

    def test_a_worker_has_its_own_and_gives_back_no_more(self, books):
        books[0].take({ALICE: 2})
        books[1].give({ALICE: 5, BOB: 1})
        assert [each.has(ALICE) for each in books] == [True, False, False]
        assert books[2].take({ALICE: 1}, {"user": 2}) == "user"
        books[0].give({ALICE: 2})
        assert books[2].take({ALICE: 2}, {"user": 2}) == ""

    def test_they_are_what_own_books_would_be_for_any_sequence(self, books):
        """Three workers' books beside one process's: every answer is the same."""
        own, dice, keys = OwnBooks(), random.Random(8656), [("user", str(n)) for n in range(40)]
        held: list[Counter[tuple[str, str]]] = [Counter() for _ in books]
        for _ in range(3000):
            worker, key, amount = dice.randrange(3), dice.choice(keys), dice.randint(1, 3)
            if dice.random() < 0.5:
                wants = {key: amount, ("total", ""): amount}, {"user": 6, "total": 100}
                answer = books[worker].take(*wants)
                assert answer == own.take(*wants)
                if not answer:
                    held[worker][key] += amount
            elif amount <= held[worker][key]:
                gone = {key: amount, ("total", ""): amount}
                books[worker].give(gone)
                own.give(gone)
                held[worker][key] -= amount

    def test_of_those_who_have_nothing_any_more_nothing_is_left(self, ledger, books, memory):
        for number in range(2000):
            books[number % 3].take({("user", str(number)): 1})
        for number in range(2000):
            books[number % 3].give({("user", str(number)): 1})
        assert not any(memory.times[: len(memory.times)].tolist())

    def test_a_full_ledger_refuses_and_does_not_fail(self, books, ledger, monkeypatch):
        def full(key):
            raise Full

        monkeypatch.setattr(ledger, "find_or_make", full)
        assert books[0].take({ALICE: 1}) == "total"
        books[0].opened(RELAYED)
        assert not books[1].is_live(RELAYED)
        assert books[0].budgets(ALICE, 1, DropReason.USER_BANDWIDTH) is None

    def test_a_crowded_ledger_finds_everybody(self, ledger, monkeypatch):
        """Every key begins its search at the same row."""
        monkeypatch.setattr(ledger, "_start", lambda digest: (2**18 - 3) * ledger._row_bytes)
        places = []
        for number in range(50):
            places.append(ledger.find_or_make(("user", str(number))))
            ledger.add(places[-1], 0, 1)
        assert len(set(places)) == 50
        ledger.set(places[20], 0, 0)
        assert [ledger.find(("user", str(n))) for n in range(50)] == places
        assert ledger.find_or_make(("user", "new")) == places[20], "a free row is used again"
        assert ledger.find(("user", "20")) is None

    def test_rows_of_buckets_that_were_not_full_do_not_stay(self, ledger, books, monkeypatch):
        """Else each user that ever came makes every search longer, for ever."""
        monkeypatch.setattr(ledger, "_start", lambda digest: 0)
        now = time.monotonic()
        clock = SimpleNamespace(monotonic=lambda: now)
        monkeypatch.setattr("turn.workers.ledger.time", clock)
        for number in range(50):
            books[0].take({("user", str(number)): 1})
            bucket, _ = books[0].budgets(("user", str(number)), 1000, DropReason.USER_BANDWIDTH)
            bucket.holds(1, now)
            bucket.spend(1)
        for number in range(50):
            books[0].give({("user", str(number)): 1})
        clock.monotonic = lambda: now + 0.002  # by then one byte is paid off
        assert ledger.find(("user", "49")) is not None
        books[0].take({ALICE: 1})
        assert ledger.find(ALICE) == 0
        assert all(ledger.find(("user", str(number))) is None for number in range(50))


def holds_the_last_place_alone(books, board, worker):
    """Asks for the only place there is, again and again; False: somebody else had it as well."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        if books.take({ALICE: 1}, {"user": 1}) == "":
            board[0] = worker
            time.sleep(0.0002)
            if board[0] != worker:
                return False
            books.give({ALICE: 1})
    return True


def test_processes_that_ask_at_once_get_what_there_is_and_no_more(ledger, monkeypatch):
    board, counts = mmap.mmap(-1, 1), ledger.counts

    def slowly(place):
        """What there is is looked at, and another process has its turn before it is taken."""
        found = counts(place)
        time.sleep(0.0002)
        return found

    monkeypatch.setattr(ledger, "counts", slowly)
    children = []
    for worker in range(3):
        pid = os.fork()
        if pid == 0:
            mine = SharedBooks(ledger, worker, lambda *_: None)
            os._exit(0 if holds_the_last_place_alone(mine, board, worker) else 1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]


def test_a_lock_does_not_stay_with_the_dead(ledger, books):
    ready = mmap.mmap(-1, 1)
    pid = os.fork()
    if pid == 0:
        SharedBooks(ledger, 2, lambda *_: None).take({ALICE: 5})
        ledger.lock()
        ready[0] = 1
        time.sleep(60)
    while not ready[0]:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert books[0].take({ALICE: 1}, {"user": 5}) == "user"
    ledger.clear(2)
    assert books[0].take({ALICE: 5}, {"user": 5}) == ""


class TestRelayedAddresses:
    def test_others_know_it_until_it_is_released_and_hear_of_that(self, books, told):
        one, two, three = books
        assert not two.is_live(RELAYED)
        one.opened(RELAYED)
        assert two.is_live(RELAYED)
        assert not three.is_live(Address("192.0.2.1", 50001))
        assert two.ports_in_use("192.0.2.1") == 1
        one.closed(RELAYED)
        assert told == [(RELAYED, [1])]
        assert not two.is_live(RELAYED)
        assert two.ports_in_use("192.0.2.1") == 0
        one.opened(RELAYED)
        one.closed(RELAYED)
        assert len(told) == 1, "nobody has asked for it this time"

    def test_one_that_is_handed_over_lives_on_and_all_hear_of_its_end(self, books, told):
        one, two, three = books
        one.opened(RELAYED)
        assert three.is_live(RELAYED)
        one.handed_over(RELAYED)
        two.opened(RELAYED)
        assert one.is_live(RELAYED)
        assert three.is_live(RELAYED)
        assert three.ports_in_use("192.0.2.1") == 1
        assert told == []
        two.closed(RELAYED)
        assert told == [(RELAYED, [0, 2])]

    def test_for_tcp_and_for_packets_a_port_is_two(self, books, told):
        """What listens for connections is no peer for packets, nor the other way round."""
        one, two, _ = books
        one.opened(RELAYED, is_tcp=True)
        assert two.is_live(RELAYED, is_tcp=True)
        assert not two.is_live(RELAYED)
        two.opened(RELAYED)
        assert two.ports_in_use("192.0.2.1") == 2
        one.closed(RELAYED, is_tcp=True)
        assert one.is_live(RELAYED)
        assert not two.is_live(RELAYED, is_tcp=True)
        assert told == [], "both ends of a connection see that it is over"

    def test_a_dead_workers_are_nobodys(self, books, ledger):
        books[0].opened(RELAYED)
        assert books[1].is_live(RELAYED)
        ledger.clear(0)
        assert not books[1].is_live(RELAYED)
        assert books[1].ports_in_use("192.0.2.1") == 0


class TestBandwidth:
    def test_one_bucket_for_all(self, books):
        books[0].take({ALICE: 1})
        (one, _), (other, back) = (
            each.budgets(ALICE, 1000, DropReason.USER_BANDWIDTH) for each in books[:2]
        )
        now = time.monotonic()
        assert one.holds(600, now)
        one.spend(600)
        assert not other.holds(600, now)
        assert other.holds(400, now)
        other.spend(400)
        assert not one.holds(1, now)
        assert one.holds(500, now + 0.5)
        assert not one.holds(501, now + 0.5)
        assert back.holds(1000, now), "the other way has a bucket of its own"

    def test_leaving_for_a_moment_does_not_fill_it(self, books):
        """Nobody gets a second burst by allocating anew."""
        books[0].take({ALICE: 1})
        (one, _) = books[0].budgets(ALICE, 1000, DropReason.USER_BANDWIDTH)
        now = time.monotonic()
        one.holds(1000, now)
        one.spend(1000)
        books[0].give({ALICE: 1})
        books[1].take({ALICE: 1})
        (again, _) = books[1].budgets(ALICE, 1000, DropReason.USER_BANDWIDTH)
        assert not again.holds(100, now)


def test_strangers_of_all_count_and_a_dead_workers_do_not(memory):
    one, two = SharedPlaces(memory, 0, 7), SharedPlaces(memory, 1, 7)
    for _ in range(3):
        one.add(0xC0000201, 1)
    two.add(0xC0000201, 1)
    assert one.count(0xC0000201) == two.count(0xC0000201) == 4
    assert two.count(0xC0000202) == 0
    forget_strangers(memory, 0)
    assert two.count(0xC0000201) == 1
    two.add(0xC0000201, -1)
    two.add(0xC0000201, -1)
    assert two.count(0xC0000201) == 0
