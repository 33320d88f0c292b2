"""What expressions give: against a second evaluator, and by tables of what surprises elsewhere."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.policy.fields import MessageFields, Subject
from bridge.policy.formula import build
from bridge.policy.payload import MISSING
from bridge.policy.syntax import parse, spell
from bridge.policy.tokens import ExpressionError
from bridge.policy.values import TEXT_CHARS_MAX
from tests.policy.expressions import (
    GATEWAY,
    LEVELS,
    Unknown,
    conditions,
    json_payloads,
    message,
    model,
    values,
)

FIELDS = MessageFields(LEVELS, 4)


def value_of(text, payload=b"", **more):
    subject = Subject(message(payload, **more), LEVELS, GATEWAY)
    return build(parse(text), FIELDS).value(subject)


@settings(max_examples=400, deadline=None)
@given(conditions | values, json_payloads | st.none())
def test_whatever_the_expression_it_gives_what_the_model_gives(tree, document):
    told = message(b"no JSON" if document is None else json.dumps(document).encode())
    try:
        expected = model(tree, told, Unknown if document is None else json.loads(told.payload))
    except Unknown:
        expected = MISSING
    # By way of the text, so that what is written out means the same when it is read again.
    try:
        formula = build(parse(spell(tree)), FIELDS)
    except ExpressionError as wrong:
        assert 0 <= wrong.column <= len(spell(tree))  # noqa: PT017 - what can never be true is refused
        return
    given_back = formula.value(Subject(told, LEVELS, GATEWAY))
    assert type(given_back) is type(expected)
    assert given_back == expected
    if formula.by_topic:
        assert formula.value(Subject(message(b"1", qos=2, retain=True), LEVELS, GATEWAY)) == given_back


@settings(max_examples=300, deadline=None)
@given(conditions | values)
def test_printed_and_parsed_again_it_is_the_same(tree):
    spelled = spell(tree)
    assert spell(parse(spelled)) == spelled


PAYLOAD = b"""{"t": 21.5, "n": 7, "s": "21.5", "yes": true, "no": false, "null": null,
 "list": ["a", 1, null], "o": {"x": {"y": 1}}, "odd name": 3, "": 4,
 "big": 1e308, "whole": 9007199254740993, "in": 5, "\\u00fc": 6}"""

GIVES = [
    # ---- no surprises about truth ----
    ("payload.yes", True),
    ("payload.no or payload.yes", True),
    ("payload.t == 21.5", True),
    ('payload.t == "21.5"', MISSING),
    ('payload.t != "21.5"', MISSING),
    ("payload.yes == 1", MISSING),
    ("1 in [true]", False),
    ("payload.yes in [1]", False),
    ("payload.n and true", MISSING),
    ("not payload.n", MISSING),
    ("payload.null == null", True),
    ("payload.n == null", False),
    ("payload.n != null", True),
    ("payload.gone == null", MISSING),
    ("payload.null > 0", MISSING),
    ("payload.list == payload.list", MISSING),
    ("payload.whole == 9007199254740992.0", False),
    ("payload.n == 7.0", True),
    # ---- what cannot be told ----
    ("payload.gone > 20", MISSING),
    ("not (payload.gone > 20)", MISSING),
    ("payload.gone > 20 and false", False),
    ("payload.gone > 20 or payload.t > 20", True),
    ("payload.gone > 20 or false", MISSING),
    ("present(payload.gone)", False),
    ("present(payload.null)", True),
    ("present(payload.o.x) and not present(payload.o.x.y.z)", True),
    ('default(payload.gone, "C")', "C"),
    ("default(payload.t, 0) + 1", 22.5),
    # ---- walking ----
    ("payload.o.x.y", 1),
    ('payload["odd name"]', 3),
    ('payload[""]', 4),
    ('payload["\\u00fc"]', 6),
    ("payload.list[1]", 1),
    ("payload.list[3]", MISSING),
    ("payload.t[0]", MISSING),
    ("payload.s[0]", MISSING),
    ("payload.in", 5),
    ("len(payload.list)", 3),
    ("len(payload.o)", 1),
    ("topic[3]", "telemetry"),
    ("line + machine", "a7"),
    # ---- lists ----
    ('"a" in payload.list', True),
    ('"b" not in payload.list', True),
    ("null in payload.list", True),
    ("payload.n in [1, payload.n]", True),
    ('line in ["a", "b"]', True),
    ("payload.gone in [1]", MISSING),
    ("payload.n in payload.s", MISSING),
    ("payload.n in []", False),
    # ---- calculation ----
    ("1 + 2 * 3 - 4 / 2", 5.0),
    ("(1 + 2) * -3", -9),
    ("7 % 4", 3),
    ("payload.n / 0", MISSING),
    ("payload.n % 0", MISSING),
    ("payload.big * 10", MISSING),
    ("payload.s + 1", MISSING),
    ('payload.s + "x"', "21.5x"),
    ("9223372036854775807 * 9223372036854775807 > 1e37", True),
    # ---- functions ----
    ("number(payload.s) + 1", 22.5),
    ("number(machine) == 7", True),
    ('number("1_000")', MISSING),
    ('number("nan")', MISSING),
    ('number("٣")', MISSING),
    ('number("")', MISSING),
    ('text(payload.t) + "x"', "21.5x"),
    ("text(payload.yes)", "true"),
    ("json(payload.s)", '"21.5"'),
    ("json(payload.list)", '["a",1,null]'),
    ("text(payload.gone)", MISSING),
    ("round(payload.t)", 22),
    ("round(21.456, 1)", 21.5),
    ("upper(line)", "A"),
    ("lower(payload.n)", MISSING),
    ('trim("  a ")', "a"),
    ('replace(topic, "/", ".")', "plant.a.7.telemetry"),
    ('replace(topic, "", ".")', MISSING),
    ('matches(topic, "plant/+/7/#")', True),
    ('matches(payload.s, "#")', True),
    ('startswith(publisher, "press-")', True),
    ('endswith(topic, "telemetry")', True),
    ('contains(topic, "/a/")', True),
    ("len(publisher)", 7),
    ("max(payload.n, qos)", 7),
    ("received_at", "2025-11-23T22:45:01.123456789Z"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), GIVES)
def test_an_expression_gives(text, expected):
    given_back = value_of(text, PAYLOAD)
    assert type(given_back) is type(expected)
    assert given_back == expected


MISTAKES = [
    ("topic ‸> 5", "topic is text and 5 is a number: they cannot be compared"),
    ("‸qos and retain", "qos is a number, not true or false; write qos != 0"),
    ("retain and ‸topic", 'topic is text, not true or false; write topic != ""'),
    ("not ‸topic", "topic is text"),
    ("‸retain > 1", "which has no order"),
    ("qos < ‸null", "which has no order"),
    ("line + ‸1", "1 is a number, not text; write text(…)"),
    ("qos + ‸retain", "retain is true or false, not a number"),
    ("-‸topic", "topic is text, not a number"),
    ("line ‸in topic", "write contains"),
    ("line in ‸qos", "qos is a number, not a list"),
    ("‸[1] in [1]", "a list is in no list"),
    ("qos ‸== [1]", "write 'in'"),
    ("len(‸[1])", "takes no list"),
    ("‸lenn(topic)", "unknown function 'lenn'; did you mean 'len'?"),
    ("‸len(topic, 1)", "wants 1 arguments, not 2"),
    ("‸round(1, 2, 3)", "wants 1 or 2 arguments, not 3"),
    ("round(1, ‸qos)", "digits from 0 to 15"),
    ("matches(topic, ‸line)", "a topic filter in quotes"),
    ('matches(topic, ‸"a#")', "# must be the whole of the last level"),
    ("startswith(topic, ‸1)", "1 is a number, not text"),
    ("‸lin == 1", "unknown field 'lin'; did you mean 'line'?"),
    ("‸paylod.t > 1", "did you mean 'payload'?"),
    ("‸qos.x", "has nothing inside"),
    ("‸topic[4]", "at most 4 levels"),
    ("‸topic.x", "topic[0], topic[1]"),
    ("‸property", "property.NAME"),
    ("‸property.a.b", "property.NAME"),
    ("‸__class__", "unknown field"),
    ("‸topic.__class__", "topic[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("marked", "says"), MISTAKES)
def test_a_mistake_is_pointed_at(marked, says):
    before, _, after = marked.partition("‸")
    with pytest.raises(ExpressionError) as caught:
        build(parse(before + after), FIELDS)
    assert says in str(caught.value)
    assert caught.value.column == len(before)


@pytest.mark.parametrize(
    "growing", ['replace(payload.s, "a", "aaaaaaaaaaaaaaaa")', "payload.s + payload.s", "upper(payload.s)"]
)
def test_text_does_not_grow_without_end(growing):
    text = growing
    for _ in range(12):
        text = text.replace("payload.s", f"({growing})", 1)
    payload = json.dumps({"s": "a" * (TEXT_CHARS_MAX // 2)}).encode()
    given_back = value_of(text, payload)
    assert given_back is MISSING or len(given_back) <= TEXT_CHARS_MAX


def test_numbers_do_not_grow_without_end():
    payload = b'{"n": ' + b"9" * 300 + b"}"
    product = " * ".join(["payload.n"] * 30)
    assert value_of(product, payload) is MISSING
    assert math.isfinite(value_of("payload.n * 1", payload))
