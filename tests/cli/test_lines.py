"""A message as a line: nothing lost in JSON, nothing harmful on a terminal."""

import json
from base64 import b64decode

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.lines import for_people, for_programs
from bridge.message import Message, Properties
from bridge.sinks.base import Outgoing
from bridge.sinks.metadata import metadata
from bridge.sinks.receiver import Received

AT = 1_763_930_467_123_456_789


def received(payload=b"21.5", topic="plant/a/7", **more):
    message = Message(topic, payload, qos=1, publisher="press-7", received_ns=AT, **more)
    # What goes over the wire, so that both ends agree on the names.
    meta = msgspec.json.decode(msgspec.json.encode(metadata(Outgoing("plant-7/3/17", "a.7", message))))
    return Received(meta["id"], meta["topic"], meta["address"], payload, meta)


def test_json_holds_everything():
    properties = Properties(
        content_type="text/plain",
        correlation_data=b"\xff",
        user_properties=(("a", "1"), ("a", "2")),
        topic_alias=7,
    )
    assert json.loads(for_programs(received(properties=properties))) == {
        "id": "plant-7/3/17",
        "topic": "plant/a/7",
        "payload": "21.5",
        "qos": 1,
        "retain": False,
        "received_at": "2025-11-23T20:41:07.123456789Z",
        "address": "a.7",
        "publisher": "press-7",
        "properties": {
            "content_type": "text/plain",
            "correlation_data": "/w==",
            "user_properties": [["a", "1"], ["a", "2"]],
        },
    }


def test_json_says_of_a_replayed_message_that_it_is_one():
    message = Message("plant/a/7", b"21.5", received_ns=AT)
    meta = msgspec.json.decode(msgspec.json.encode(metadata(Outgoing("i", "a", message, replayed=True))))
    told = json.loads(for_programs(Received("i", "plant/a/7", "a", b"21.5", meta)))
    assert told["replayed"] is True
    assert told["properties"] == {}
    assert "replayed" not in json.loads(for_programs(received()))


@given(st.binary() | st.text().map(str.encode), st.text(min_size=1))
def test_any_payload_and_topic_come_back_from_one_ascii_line(payload, topic):
    line = for_programs(received(payload, topic))
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert told["topic"] == topic
    if "payload" in told:
        assert told["payload"].encode() == payload
        assert "payload_b64" not in told
    else:
        assert b64decode(told["payload_b64"]) == payload


@given(st.binary(max_size=5000) | st.text().map(str.encode), st.text(min_size=1))
def test_any_payload_and_topic_are_one_printable_line(payload, topic):
    line = for_people(received(payload, topic), AT)
    assert line.isprintable()
    assert line.endswith("(plant-7/3/17, 0.0 ms)")


PEOPLE = [
    (b'{"t": 21.5}', 12_300_000, 'plant/a/7  {"t": 21.5}  (plant-7/3/17, 12.3 ms)'),
    (b"\x00\xff", 0, "plant/a/7  0x00ff  (plant-7/3/17, 0.0 ms)"),
    (b"\x1b[2J\n", -5, r"plant/a/7  \x1b[2J\n  (plant-7/3/17, 0.0 ms)"),
    (b"", 3_600_000_000_000, "plant/a/7    (plant-7/3/17, 3,600.0 s)"),
]


def test_people_see_topic_payload_id_and_latency():
    for payload, later_ns, line in PEOPLE:
        assert for_people(received(payload), AT + later_ns) == line
    long = for_people(received("ä".encode() * 5000 + b"x"), AT)
    assert "ä… (10,001 bytes)" in long
    assert "0x" not in long
