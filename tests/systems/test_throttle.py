"""The lane: how many at once, how fast, and when all stop. Time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawbar.throttle import WINDOW_S, Throttle, retry_delay


def a_throttle(**more) -> Throttle:
    return Throttle(**{"max_parallel": 4, "requests_per_5_min": 5400, **more})


class TestRetryDelay:
    def test_doubles_up_to_the_cap(self):
        """1, 2, 4 … 60 s."""
        assert [retry_delay(n, base_s=1, cap_s=60) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]

    def test_obeys_the_server_above_the_cap(self):
        """Retry-After stands."""
        assert retry_delay(1, base_s=1, cap_s=60, retry_after_s=300) == 300

    @given(st.integers(1, 10_000), st.floats(0, 1))
    def test_jitter_only_adds(self, attempt, jitter):
        """Up to a quarter, and never less than asked for."""
        plain = retry_delay(attempt, base_s=0.2, cap_s=60)

        assert plain <= retry_delay(attempt, base_s=0.2, cap_s=60, jitter=jitter) <= plain * 1.25

    def test_counts_from_one(self):
        """Attempt 0 is the request itself."""
        with pytest.raises(ValueError):
            retry_delay(0, base_s=1, cap_s=60)


class TestAdmit:
    def test_lets_as_many_go_as_the_limit_says(self):
        """The service runs only so many at once; more would wait in its queue."""
        lane = a_throttle()

        assert [lane.admit(0.0) for _ in range(5)] == [True] * 4 + [False]

    def test_follows_the_hint_of_the_service_downwards(self):
        """`x-ms-dop-hint` bounds the limit; going beyond it lowers the throughput."""
        lane = a_throttle(max_parallel=10)
        lane.admit(0.0)
        lane.succeeded(0.0, hint=2)

        assert lane.limit == 2

    @given(st.lists(st.floats(0, 5), min_size=1, max_size=300))
    def test_never_exceeds_the_budget_of_a_window(self, gaps):
        """In no window of 5 minutes more than 110 % of the budget."""
        lane = a_throttle(max_parallel=40, requests_per_5_min=60)
        now, sent = 0.0, []
        for gap in gaps:
            now += gap
            while lane.admit(now):
                sent.append(now)
                lane.succeeded(now)

        assert all(sum(at <= other < at + WINDOW_S for other in sent) <= 66 for at in sent)

    def test_says_how_long_to_wait(self):
        """Waiting that long is enough."""
        lane = a_throttle(requests_per_5_min=30)
        now = 0.0
        while lane.admit(now):
            lane.succeeded(now)

        assert not lane.admit(now)
        assert lane.admit(now + lane.wait_s(now))


class TestRefused:
    def test_stops_the_whole_lane_for_the_time_named(self):
        """Not the one request: going on makes the pause longer."""
        lane = a_throttle()
        lane.admit(0.0)
        lane.refused(0.0, retry_after_s=7)

        assert (lane.admit(6.9), lane.admit(7.0)) == (False, True)
        assert lane.paused_reason == "throttled"

    def test_resumes_at_half_and_ramps_up(self):
        """Additive increase, multiplicative decrease."""
        lane = a_throttle(max_parallel=8)
        lane.admit(0.0)
        lane.refused(0.0, retry_after_s=1)
        limits = [lane.limit]
        for _ in range(40):
            lane.admit(2.0)
            lane.succeeded(2.0)
            limits.append(lane.limit)

        assert (limits[0], limits[-1]) == (4, 8)
        assert limits == sorted(limits)
        assert lane.paused_reason == ""

    def test_counts_the_requests_of_one_burst_once(self):
        """Four requests that were refused together halve the lane once."""
        lane = a_throttle()
        for _ in range(4):
            lane.admit(0.0)
        for _ in range(4):
            lane.refused(0.0)

        assert lane.limit == 2
        assert lane.stopped_until == 1.0

    def test_backs_off_when_no_time_is_named(self):
        """1, 2, 4 … 60 s."""
        lane, now, pauses = a_throttle(), 0.0, []
        for _ in range(8):
            assert lane.admit(now)
            lane.refused(now)
            pauses.append(lane.stopped_until - now)
            now = lane.stopped_until

        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


class TestFailed:
    def test_becomes_an_outage_after_so_many_in_a_row(self):
        """Then one request at a time finds out whether it is over, less and less often."""
        lane, now, pauses = a_throttle(attempts=3, backoff_base_s=1, backoff_cap_s=10), 0.0, []
        for _ in range(8):
            assert lane.admit(now)
            lane.failed(now)
            pauses.append(lane.stopped_until - now)
            now = max(now, lane.stopped_until)

        assert pauses[-6:] == [1, 2, 4, 8, 10, 10]
        assert (lane.limit, lane.paused_reason) == (1, "unavailable")

    def test_is_over_with_the_first_answer(self):
        """And the lane ramps up from one."""
        lane = a_throttle(attempts=1)
        lane.admit(0.0)
        lane.failed(0.0)
        lane.admit(100.0)
        lane.succeeded(100.0)

        assert (lane.is_out, lane.paused_reason, lane.limit) == (False, "", 2)

    def test_of_a_single_record_stops_nobody(self):
        """Failures with successes between them are no outage."""
        lane = a_throttle(attempts=3)
        for _ in range(20):
            lane.admit(0.0)
            lane.failed(0.0)
            lane.admit(0.0)
            lane.succeeded(0.0)

        assert lane.admit(0.0)

    def test_of_writes_is_not_ended_by_reads(self):
        """A system that can be read and takes no writes is out, until it takes one."""
        lane, now = a_throttle(attempts=3, backoff_base_s=1, backoff_cap_s=1), 0.0
        seen = []
        for write_succeeds in [False] * 4 + [True]:
            for write in (True, False):
                now = max(now, lane.stopped_until)
                assert lane.admit(now)
                if write and not write_succeeds:
                    lane.failed(now, write=True)
                else:
                    lane.succeeded(now, write=write)
            seen.append((lane.is_out, lane.paused_reason))

        assert seen == [(False, "")] * 2 + [(True, "unavailable")] * 2 + [(False, "")]

    def test_of_one_record_again_and_again_is_no_outage(self):
        """However long nothing else is written: the others need not wait for it."""
        lane = a_throttle(attempts=3)
        for number in range(20):
            assert lane.admit(0.0)
            lane.failed(0.0, write=True, again=number > 0)

        assert not lane.is_out


class TestUsedShare:
    def test_is_of_the_last_five_minutes(self):
        """What was asked before the window counts no more."""
        lane = Throttle(max_parallel=40, requests_per_5_min=100)
        for _ in range(5):
            assert lane.admit(0)
        for _ in range(5):
            assert lane.admit(200)

        assert 0.1 == lane.used_share(299)
        assert 0.05 == lane.used_share(301)
        assert 0.0 == lane.used_share(1000)
