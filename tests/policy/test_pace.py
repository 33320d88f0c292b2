"""How many messages go in any stretch of time: never more than the rate and one burst, and not fewer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.pace import BURST_S, Pace, PaceLimits

rates = st.floats(0.01, 1e5)
sizes = st.integers(1, 10_000)
steps = st.lists(st.floats(0, 5), min_size=1, max_size=60)


@given(rates, steps)
def test_in_no_stretch_of_time_there_are_more_messages_than_the_rate_and_one_burst(rate, gaps):
    pace, burst = Pace(PaceLimits(messages_per_s=rate)), max(1.0, rate * BURST_S)
    now_s, went = 100.0, []
    for gap in gaps:
        now_s += gap
        went.append((now_s, pace.take([1] * 20_000, now_s)))
    for at, (begin_s, _) in enumerate(went):
        for to in range(at, len(went)):
            count = sum(count for _, count in went[at : to + 1])
            assert count <= burst + (went[to][0] - begin_s) * rate + 1e-3


@given(st.integers(10, 10**6), st.lists(sizes, min_size=1, max_size=50))
def test_bytes_go_at_the_rate_and_one_message_larger_than_the_burst_goes_too(rate, waiting):
    pace, burst = Pace(PaceLimits(bytes_per_s=rate)), max(1.0, rate * BURST_S)
    now_s, total, left = 0.0, 0, list(waiting)
    while left:
        wait_s = pace.wait_s(now_s)
        now_s += wait_s
        count = pace.take(left, now_s)
        assert count, "what was waited for may go"
        total += sum(left[:count])
        del left[:count]
        last = waiting[len(waiting) - len(left) - 1]
        assert total <= burst + now_s * rate + last + 1e-3
    assert now_s <= sum(waiting) / rate + BURST_S + 1e-3, "and not slower than the rate"


@given(st.floats(0.5, 1e4))
def test_whoever_comes_back_when_told_gets_the_whole_rate(rate):
    pace, now_s, count = Pace(PaceLimits(messages_per_s=rate)), 0.0, 0
    while now_s < 20 / rate + 5:
        count += pace.take([1] * 10_000, now_s)
        now_s += max(pace.wait_s(now_s), 1e-4)
    assert count >= int((now_s - BURST_S - 1 / rate) * rate) - 1


def test_after_an_hour_of_silence_there_is_no_more_than_one_burst():
    pace = Pace(PaceLimits(messages_per_s=500))
    assert pace.take([1] * 1000, 0.0) == 50
    assert pace.take([1] * 1000, 3600.0) == 50
    assert pace.take([1] * 1000, 3600.0) == 0


def test_both_limits_count_and_the_narrower_one_rules():
    pace = Pace(PaceLimits(messages_per_s=1000, bytes_per_s=1000))
    assert pace.take([60] * 100, 0.0) == 2
    assert pace.wait_s(0.0) == pytest.approx(0.07)


def test_without_limits_everything_goes():
    pace = Pace(PaceLimits())
    assert not pace.limits
    assert (pace.take([10**9] * 1000, 0.0), pace.wait_s(0.0)) == (1000, 0.0)


def test_a_clock_that_stands_still_or_goes_back_brings_nothing():
    pace = Pace(PaceLimits(messages_per_s=10))
    assert pace.take([1, 1], 5.0) == 1
    assert pace.take([1, 1], 5.0) == 0
    assert pace.take([1, 1], 1.0) == 0
    assert pace.take([1, 1], 5.1) == 1
