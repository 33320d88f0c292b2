import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy.units import (
    format_byte_rate,
    format_duration,
    format_rate,
    format_size,
    parse_byte_rate,
    parse_duration,
    parse_rate,
    parse_size,
)

DURATIONS = [
    ("0s", 0.0),
    ("200ms", 0.2),
    ("2s", 2.0),
    ("1.5s", 1.5),
    ("5m", 300.0),
    ("1h", 3600.0),
    ("7d", 604_800.0),
]
SIZES = [("0B", 0), ("512B", 512), ("256KiB", 262_144), ("1MB", 10**6), ("1.5KiB", 1536), ("2GiB", 2 << 30)]


@pytest.mark.parametrize(("spelled", "seconds"), DURATIONS)
def test_a_duration_reads_as_seconds(spelled, seconds):
    assert parse_duration(spelled) == seconds


@pytest.mark.parametrize(("spelled", "size"), SIZES)
def test_a_size_reads_as_bytes(spelled, size):
    assert parse_size(spelled) == size


@pytest.mark.parametrize(("spelled", "rate"), [("500/s", 500.0), ("0.5/s", 0.5), ("1000000/s", 1e6)])
def test_a_rate_of_messages_reads_as_so_many_in_a_second_and_is_spelled_the_same(spelled, rate):
    assert parse_rate(spelled) == rate
    assert format_rate(rate) == spelled


@pytest.mark.parametrize(("spelled", "rate"), [("64KiB/s", 65_536), ("1B/s", 1), ("2MiB/s", 2 << 20)])
def test_a_rate_of_bytes_reads_as_so_many_in_a_second_and_is_spelled_the_same(spelled, rate):
    assert parse_byte_rate(spelled) == rate
    assert format_byte_rate(rate) == spelled


MISTAKES = [
    (parse_duration, 200, "'200' has no unit; write '200ms' or '200s'"),
    (parse_duration, "200", "'200' has no unit; write '200ms' or '200s'"),
    (parse_duration, "5min", "'5min' has the unknown unit 'min'; write '5m'"),
    (parse_duration, "5S", "'5S' has the unknown unit 'S'; write '5s'"),
    (parse_duration, "5w", "a duration ends in ms, s, m, h, d"),
    (parse_duration, "-5s", "is not a duration"),
    (parse_duration, "nan", "is not a duration"),
    (parse_duration, True, "must be a duration such as"),
    (parse_duration, "9" * 400 + "s", "is not a duration"),
    (parse_size, 512, "'512' has no unit; write '512B' or '512KiB'"),
    (parse_size, "1kb", "'1kb' has the unknown unit 'kb'; write '1kB'"),
    (parse_size, "1G", "write '1GiB'"),
    (parse_size, "0.5B", "'0.5B' is not a whole number of bytes"),
    (parse_size, None, "must be a size such as"),
    (parse_rate, 500, "'500' has no '/s' for 'in a second'; write '500/s'"),
    (parse_rate, "500/min", "rates are in a second; write '500/s'"),
    (parse_rate, "64KiB/s", "is not a rate of messages; write '500/s'"),
    (parse_rate, "0/s", "is slower than one message in an hour"),
    (parse_rate, "-1/s", "is not a rate of messages"),
    (parse_rate, ["1/s"], "must be a rate such as '500/s'"),
    (parse_rate, "1e9/s", "is not a rate of messages"),
    (parse_byte_rate, "64KiB", "'64KiB' has no '/s' for 'in a second'; write '64KiB/s'"),
    (parse_byte_rate, "500/s", "is not a rate of bytes; write '64KiB/s'"),
    (parse_byte_rate, "0B/s", "would never send anything"),
    (parse_byte_rate, True, "must be a rate such as '64KiB/s'"),
]


@pytest.mark.parametrize(("parse", "text", "says"), MISTAKES)
def test_a_mistake_is_answered_with_what_to_write(parse, text, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        parse(text)


@given(st.floats(min_value=0, max_value=1e12).map(lambda value: round(value, 9)))
def test_a_duration_survives_the_round_trip(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**15))
def test_a_size_survives_the_round_trip(size):
    assert parse_size(format_size(size)) == size


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.integers()))
def test_anything_is_a_value_or_a_value_error(anything):
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(anything) >= 0
