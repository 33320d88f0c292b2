"""One message as a JSON document, there and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.message import CLOCK_PLAUSIBLE_NS, Message, Properties
from bridge.policy.envelope import decode, document, envelope, rfc3339, to_ns

RECEIVED_NS = 1_772_344_800_012_345_678
MOMENTS_NS = st.integers(0, (1 << 63) - 1)  # as far as 64 bits of nanoseconds reach: the year 2262
# No lone surrogates: MQTT has none either.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PROPERTIES = st.builds(
    Properties,
    payload_format_indicator=st.none() | st.integers(0, 1),
    message_expiry_interval_s=st.none() | st.integers(0, (1 << 32) - 1),
    content_type=st.none() | TEXTS,
    response_topic=st.none() | TEXTS,
    correlation_data=st.none() | st.binary(max_size=20),
    user_properties=st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple),
)
MESSAGES = st.builds(
    Message,
    topic=TEXTS,
    payload=st.binary(max_size=60) | TEXTS.map(str.encode),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    publisher=TEXTS,
    received_ns=MOMENTS_NS,
    properties=st.none() | PROPERTIES.filter(lambda properties: properties != Properties()),
)


@given(MESSAGES, TEXTS, TEXTS, st.booleans())
def test_every_message_comes_out_as_it_went_in(message, id, address, replayed):
    told = decode(document(envelope(id, address, message, replayed=replayed)))
    assert told.message == message
    assert (told.id, told.address, told.replayed) == (id, address, replayed)
    assert bool(told.clock) == (message.received_ns < CLOCK_PLAUSIBLE_NS)


@given(MESSAGES)
def test_a_document_is_one_line(message):
    assert b"\n" not in document(envelope("id", "", message))


def test_a_document_reads_as_the_page_says():
    message = Message("p/7", b"21.5", 1, False, "press-7", RECEIVED_NS, Properties(content_type="text/plain"))
    assert json.loads(document(envelope("plant-7/5f/42", "p.7", message))) == {
        "id": "plant-7/5f/42",
        "topic": "p/7",
        "address": "p.7",
        "qos": 1,
        "retain": False,
        "received_at": "2026-03-01T06:00:00.012345678Z",
        "publisher": "press-7",
        "properties": {"content_type": "text/plain"},
        "payload": "21.5",
    }


def test_bytes_that_are_no_text_are_base64_and_nothing_is_said_twice():
    told = json.loads(document(envelope("1", "a", Message("t", b"\xff\x00", received_ns=RECEIVED_NS))))
    assert told["payload_b64"] == "/wA="
    assert "payload" not in told
    assert told["properties"] == {}


def test_a_body_of_the_route_goes_with_its_own_content_type_and_headers():
    spoken = Message(
        "t", b"\xff", received_ns=RECEIVED_NS, properties=Properties(1, content_type="image/png")
    )
    headers = (("site", "Köln"),)
    told = envelope("1", "a", spoken, headers=headers, body=b"{}", content_type="application/json")
    assert json.loads(document(told))["payload"] == "{}"
    assert json.loads(document(told))["properties"] == {"content_type": "application/json"}
    assert told.meta()["headers"] == {"site": "Köln"}


def test_what_a_receiver_is_told_of_it_is_flat():
    message = Message("t", b"x", received_ns=1, properties=Properties(correlation_data=b"\xff"))
    assert envelope("1", "a", message, replayed=True).meta() == {
        "id": "1",
        "topic": "t",
        "address": "a",
        "qos": 0,
        "retain": False,
        "received_at": "1970-01-01T00:00:00.000000001Z",
        "correlation_data": "/w==",
        "clock": "unset",
        "replayed": True,
    }


def test_what_a_later_version_adds_is_skipped():
    text = document(envelope("1", "a", Message("t", b"x", received_ns=RECEIVED_NS)))
    assert decode(text[:-1] + b', "flavour": ["sour"]}').message.payload == b"x"


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"id": 7}', b"\xff", b'{"a":' * 5_000])
def test_what_is_no_envelope_is_an_error(text):
    with pytest.raises(ValueError, match="no envelope"):
        decode(text)


@given(MOMENTS_NS)
def test_a_moment_keeps_every_nanosecond(ns):
    assert to_ns(rfc3339(ns)) == ns


@pytest.mark.parametrize("text", ["", "now", "2026-03-01T06:00:00Z", "2026-13-01T06:00:00.012345678Z"])
def test_what_is_no_moment_is_an_error(text):
    with pytest.raises(ValueError, match=r"."):
        to_ns(text)
