"""As what a route sends a message."""

import pytest

from bridge.message import Message, Properties
from bridge.policy import dress as dress_module
from bridge.policy.dress import Dress
from bridge.policy.template import TemplateError
from bridge.topic import Pattern


def dress(*filters, address="{topic}", **more):
    return Dress([Pattern.parse(text) for text in filters or ("#",)], address, **more)


def message(topic="plant/a/7/telemetry", payload=b'{"t": 21.5, "site": "north"}', **more):
    return Message(topic, payload, **more)


def test_an_address_may_come_from_the_payload():
    by_site = dress(address="{payload.site}.telemetry")
    assert by_site.address(message()) == "north.telemetry"
    assert by_site.lacks(by_site.subject(message())) == ""


@pytest.mark.parametrize("payload", [b"{}", b"no JSON", b'{"site": {}}', b"[]"])
def test_an_address_with_a_hole_is_told(payload):
    by_site = dress(address="{payload.site.name}.telemetry")
    assert by_site.lacks(by_site.subject(message(payload=payload))) == "payload.site.name"
    assert not by_site.plain


def test_a_level_that_the_topic_does_not_have_is_no_hole():
    short = dress(address="{topic[5]}x")
    assert short.plain
    assert short.address(message()) == "x"
    assert short.lacks(short.subject(message())) == ""


def test_headers_are_filled_in_and_one_that_lacks_something_is_left_out():
    dressed = dress(
        "plant/{line}/#",
        headers={"line": "{line}", "t": "{payload.t}", "unit": "{payload.unit}", "x": "{topic[9]}"},
    )
    assert dressed.headers(dressed.subject(message())) == (("line", "a"), ("t", "21.5"), ("x", ""))


def test_a_body_is_made_from_the_message_and_what_is_missing_is_empty():
    dressed = dress(body='{{"t": {payload.t}, "u": {json(property.unit)}}}')
    unit = Properties(user_properties=(("unit", '"C"'),))
    assert dressed.body(dressed.subject(message(properties=unit))) == b'{"t": 21.5, "u": "\\"C\\""}'
    assert dressed.body(dressed.subject(message())) == b'{"t": 21.5, "u": }'
    assert dress().body(dress().subject(message())) is None


def test_plain_is_what_needs_no_look_at_the_message():
    assert dress().plain
    assert dress("a/{line}", address="{line}-{publisher}-{qos}").plain
    for more in ({"headers": {"a": "b"}}, {"body": ""}, {"envelope": "json"}, {"address": "{payload.a}"}):
        assert not dress(**more).plain


def test_a_mistake_in_any_template_is_an_error():
    for more in ({"address": "{lin}"}, {"headers": {"a": "{lin}"}}, {"body": "{lin}"}):
        with pytest.raises(TemplateError, match="unknown field 'lin'"):
            dress("a/{line}", **more)


def test_given_topics_without_end_then_memory_has_one(monkeypatch):
    monkeypatch.setattr(dress_module, "TOPICS_MAX", 10)
    many = dress("t/{n}", address="x.{n}")
    for number in range(1000):
        assert many.address(message(f"t/{number}")) == f"x.{number}"
        assert len(many._addresses) <= 10
        assert len(many._levels) <= 10
