"""What a stranger may cost: so many replies a second, so many connections, in fixed memory."""

import tracemalloc

import pytest

from turn.transport.limits import ConnectionLimit, ReplyLimit, network_of

HERE, THERE = "192.0.2.1", "192.0.2.2"


def allowed(limit, host, now, tries=1000):
    return sum(limit.allow(host, now) for _ in range(tries))


class TestReplies:
    @pytest.mark.parametrize("rate", [1, 3, 20, 50, 1000])
    @pytest.mark.parametrize("now", [0.0, 1000.0, 987_654.321])
    def test_one_seconds_worth_at_once_and_not_one_more(self, rate, now):
        assert allowed(ReplyLimit(rate), HERE, now, tries=3 * rate) == rate

    def test_what_was_used_comes_back_at_the_rate(self):
        limit = ReplyLimit(20)
        assert allowed(limit, HERE, 1000.0) == 20
        assert allowed(limit, HERE, 1000.049) <= 1
        assert 9 <= allowed(limit, HERE, 1000.5) <= 10
        assert allowed(limit, HERE, 2000.0) == 20

    def test_a_long_flood_gets_the_rate_and_no_more(self):
        limit = ReplyLimit(20)
        replies = sum(limit.allow(HERE, 1000.0 + step / 1000) for step in range(10_000))
        assert 200 <= replies <= 220

    def test_one_sources_flood_does_not_cost_another(self):
        limit = ReplyLimit(20)
        allowed(limit, HERE, 1000.0)
        assert allowed(limit, THERE, 1000.0) == 20

    def test_an_ipv6_network_is_one_source(self):
        limit = ReplyLimit(20)
        replies = sum(limit.allow(f"2001:db8::{host:x}", 1000.0) for host in range(1, 1000))
        assert replies == 20
        assert allowed(limit, "2001:db8:0:1::1", 1000.0) == 20

    def test_memory_does_not_grow_with_the_number_of_sources(self):
        limit = ReplyLimit(20)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(20_000):
                limit.allow(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1000.0)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 20_000

    def test_each_start_hashes_otherwise(self):
        """Nobody can find out at home which address shares a cell with a victim's."""

        def cells(limit):
            for number in range(50):
                limit.allow(f"192.0.2.{number}", 1000.0)
            return [place for place, full in enumerate(limit._cells) if full]

        assert cells(ReplyLimit(20)) != cells(ReplyLimit(20))


class TestConnections:
    def test_so_many_and_no_more_until_one_leaves(self):
        limit = ConnectionLimit(2, 10)
        assert [limit.enter(HERE) for _ in range(4)] == [True, True, False, False]
        assert limit.enter(THERE)
        limit.leave(HERE)
        assert [limit.enter(HERE) for _ in range(2)] == [True, False]

    def test_nothing_is_remembered_of_those_who_left_or_were_refused(self):
        limit = ConnectionLimit(1, 10)
        for number in range(100):
            host = f"192.0.2.{number}"
            assert limit.enter(host)
            assert not limit.enter(host)
            limit.leave(host)
        assert not limit.open

    def test_an_ipv6_network_counts_as_one(self):
        limit = ConnectionLimit(1, 10)
        assert limit.enter("2001:db8::1")
        assert not limit.enter("2001:db8::2")
        assert limit.enter("2001:db8:0:1::1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:0:1::", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_what_is_one_source(one, other, same):
    assert (network_of(one) == network_of(other)) is same


class TestTwoKinds:
    """Errors and Bindings to one host."""

    def test_errors_take_of_the_bindings_share(self):
        bindings = ReplyLimit(50)
        for number in range(20):
            bindings.charge("192.0.2.1", 100.0 + number / 1e6, 1 / 20)
        assert not bindings.allow("192.0.2.1", 100.0)
        assert bindings.allow("192.0.2.2", 100.0)

    def test_while_errors_go_out_at_their_rate_no_binding_does(self):
        errors, bindings, allowed = ReplyLimit(20), ReplyLimit(50), [0, 0]
        for tick in range(5000):  # one of each every millisecond, for 5 s
            now = 100.0 + tick / 1000
            if errors.allow("192.0.2.1", now):
                allowed[0] += 1
                bindings.charge("192.0.2.1", now, errors.cost)
            allowed[1] += bindings.allow("192.0.2.1", now)
        assert allowed[0] == 20 + 5 * 20
        assert allowed[1] < 50

    def test_the_debt_is_never_more_than_a_second(self):
        bindings = ReplyLimit(50)
        for _ in range(1000):
            bindings.charge("192.0.2.1", 100.0, 1 / 20)
        assert sum(bindings.allow("192.0.2.1", 102.0) for _ in range(60)) == 50
