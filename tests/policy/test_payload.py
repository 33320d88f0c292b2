"""Payloads as JSON: strict, never an exception, and kept within a bound."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.policy.payload import MISSING, SMALL_BYTES_MAX, Kept, as_json, json_text, walker
from tests.policy.expressions import json_values

NOT_JSON = [
    b"", b"t=1", b"{'a': 1}", b"NaN", b"-Infinity", b"01", b"1 2", b"[1,]", b'"\\ud800"',
    b'"\\udc00abcdefgh"',
    b'"\xff"', b"\xef\xbb\xbf1", b"1e400", b"[" * 200_000, b"[" * 5000 + b"]" * 5000, b'"a\nb"', b"1" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("payload", NOT_JSON, ids=lambda payload: repr(payload[:12]))
def test_what_is_not_json_is_missing(payload):
    assert as_json(payload) is MISSING


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_value_or_missing_and_what_a_value_is_can_be_sent(payload):
    value = as_json(payload)
    if value is not MISSING:
        assert json.loads(payload) == value
        assert json.loads(json_text(value).encode()) == value


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_walking_finds_every_place_and_no_other(value):
    places = [((), value)]
    while places:
        path, inner = places.pop()
        if path:
            assert walker(path)(value) is inner
        assert walker((*path, "no such name"))(value) is MISSING
        assert walker((*path, 1000))(value) is MISSING
        if isinstance(inner, dict):
            places += [((*path, key), below) for key, below in inner.items() if key != "no such name"]
        elif isinstance(inner, list):
            places += [((*path, index), below) for index, below in enumerate(inner)]


def test_given_payloads_without_end_then_what_is_kept_has_one():
    kept = Kept(bytes_max=10_000)
    large = [json.dumps({"n": number, "x": "x" * 2 * SMALL_BYTES_MAX}).encode() for number in range(100)]
    for payload in large:
        assert kept.read(payload) is kept.read(payload)  # read once
        assert sum(map(len, kept._values)) <= 10_000
    too_large = json.dumps("x" * 20_000).encode()
    assert kept.read(too_large) == "x" * 20_000
    assert too_large not in kept._values
