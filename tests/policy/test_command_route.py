"""What a message from the cloud becomes: a valid PUBLISH, or unfit with a reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Properties
from bridge.mqtt.codec import decode, encode
from bridge.mqtt.packet import Publish
from bridge.policy.command_route import CommandRoute
from bridge.policy.command_topic import CommandTopic
from bridge.policy.incoming import Incoming, Unfit
from bridge.policy.template import TemplateError
from bridge.topic import check_topic_name

NOW_NS = 1_763_937_901_000_000_000
BODY = b'{"to": {"line": "a", "n": 7}, "on": true, "deep": [1]}'
COMMAND = Incoming(1, BODY, "plant-7.press-1.set", {"device": "d/1", "n": 5})

TOPICS = [
    ("plant/{routing_key[1]}/set", "plant/press-1/set"),
    ("{routing_key}", "plant-7.press-1.set"),
    ("{routing_key[0]}/{routing_key[2]}", "plant-7/set"),
    ("{header.device}/{header.n}", "d/1/5"),
    ("{payload.to.line}/{payload.to.n}/{payload.on}", "a/7/true"),
    ("{gateway}/{{x}}", "gw/{x}"),
    ("plain", "plain"),
]
UNFIT = [
    ("{routing_key[3]}", "has no word 3"),
    ("{header.absent}", "header 'absent' is missing"),
    ("{payload.to}", "neither text nor a number"),
    ("{payload.deep.x}", "'deep.x' is missing"),
    ("{header.n}/+", "wildcards"),
]
MISTAKES = [
    ("a/{routing_keys}", 3, "did you mean 'routing_key'?"),
    ("a/{header.}", 3, "known are"),
    ("{payload.a..b}", 1, "empty name"),
    ("{topic}", 1, "unknown field 'topic'"),
    ("{routing_key[999]}", 1, "at most 127 words"),
    ("x{", 1, "without '}'"),
    ("x}", 1, "without '{'"),
]


@pytest.mark.parametrize(("text", "topic"), TOPICS)
def test_a_topic_is_made_of_what_the_message_has(text, topic):
    assert CommandTopic.compile(text, "gw").render(COMMAND) == topic


@pytest.mark.parametrize(("text", "says"), UNFIT)
def test_a_topic_with_a_hole_is_unfit(text, says):
    with pytest.raises(Unfit, match=says):
        CommandRoute("r", text).message(COMMAND, NOW_NS)


@pytest.mark.parametrize(("text", "column", "says"), MISTAKES)
def test_a_mistake_is_pointed_at(text, column, says):
    with pytest.raises(TemplateError) as caught:
        CommandTopic.compile(text)
    assert says in str(caught.value)
    assert caught.value.column == column


def test_a_payload_is_looked_into_only_where_a_topic_asks_for_it():
    binary = Incoming(1, b"\xff\x00", "a.b")
    assert CommandTopic.compile("{routing_key[1]}").render(binary) == "b"
    with pytest.raises(Unfit, match="not JSON"):
        CommandTopic.compile("{payload.x}").render(binary)


@pytest.mark.parametrize(
    ("about", "told", "left_s"),
    [
        ({}, {}, None),
        ({"max_age_s": 600}, {}, 600),
        ({"max_age_s": 600, "expiry_s": 60}, {}, 60),
        ({"max_age_s": 1.9}, {}, 1),
        ({"max_age_s": 600}, {"expiration_s": 0.5}, 1),
        ({"max_age_s": 600}, {"headers": {"message_expiry_interval_s": 7}}, 7),
        ({}, {"expiration_s": 1e12}, 0xFFFF_FFFF),
    ],
)
def test_the_shortest_life_counts(about, told, left_s):
    message = CommandRoute("r", "a", **about).message(Incoming(1, b"", **told), NOW_NS)
    assert (message.properties or Properties()).message_expiry_interval_s == left_s


def test_what_a_sink_wrote_on_the_way_up_is_read_back():
    headers = {
        "topic": "plant/a",
        "publisher": "p",
        "user_properties": [["b", "1"], ["a", "2"], ["b", "1"]],
        "correlation_data": b"\0\xff",
        "content_type": "t" * 300,
        "response_topic": "r/1",
        "payload_format_indicator": 1,
    }
    message = CommandRoute("r", "a").message(Incoming(1, b"", headers=headers), NOW_NS)
    assert message.properties == Properties(
        1, None, "t" * 300, "r/1", b"\0\xff", (("b", "1"), ("a", "2"), ("b", "1"))
    )


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"headers": {"a": "\0"}}, "U+0000"),
        ({"headers": {"a": "x" * 70_000}}, "70000 bytes"),
        ({"correlation_id": b"x" * 70_000}, "70000 bytes"),
        ({"body": b"x" * 2_000_000}, "limits.packet_bytes"),
        ({"routing_key": "\udcff"}, "UTF-8"),
        ({"headers": {"a\udcff": "x"}}, "UTF-8"),
    ],
)
def test_what_mqtt_cannot_say_is_unfit(told, says):
    with pytest.raises(Unfit) as caught:
        CommandRoute("r", "a/{routing_key}").message(
            Incoming(1, **{"body": b"", "routing_key": "k"} | told), NOW_NS
        )
    assert says in str(caught.value)


@given(st.text(), st.binary(max_size=50))
def test_any_text_is_a_template_or_an_error_with_a_column(text, body):
    try:
        topic = CommandTopic.compile(text)
    except TemplateError as wrong:
        assert 0 <= wrong.column <= len(text)  # noqa: PT017 - both outcomes are right
        return
    try:
        topic.render(Incoming(1, body, "a.b"))
    except Unfit as wrong:
        assert str(wrong)  # noqa: PT017


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.binary(max_size=40) | values.map(lambda value: json.dumps(value, default=str).encode()),
    st.text(st.characters(codec=None), max_size=30),
    st.dictionaries(st.text() | st.sampled_from(["user_properties", "device", "correlation_data"]), values),
    st.none() | st.binary(max_size=10),
    st.text(max_size=20),
    st.sampled_from(["{routing_key}", "a/{routing_key[1]}", "{header.device}", "p/{payload.a}", "fixed"]),
)
def test_whatever_comes_it_is_a_publish_that_can_be_read_or_unfit(body, key, headers, correlation, reply, to):
    incoming = Incoming(1, body, key, headers, "", False, None, correlation, reply)
    try:
        message = CommandRoute("r", to).message(incoming, NOW_NS)
    except Unfit as wrong:
        assert str(wrong)  # noqa: PT017
        return
    assert check_topic_name(message.topic) is None
    packet = Publish(message.topic, message.payload, 1, False, False, 1, message.properties)
    for version in (4, 5):
        read, _ = decode(encode(packet, version), version)
        assert (read.topic, read.payload) == (message.topic, message.payload)
        if version == 5:
            assert (read.properties or Properties()) == (message.properties or Properties())
