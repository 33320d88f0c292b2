import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Message, Properties
from bridge.policy.fields import MessageFields, Subject
from bridge.policy.payload import MISSING
from bridge.policy.template import Template, TemplateError

LEVELS = {"line": "a", "machine": "7"}
FIELDS = MessageFields(LEVELS)
PAYLOAD = b'{"t": 21.50, "unit": "\xc2\xb0C", "on": true, "l": [1, "a"], "none": null, "n": 10000000000}'
MESSAGE = Message(
    "plant/a/7/telemetry", PAYLOAD, 1, True, "press-7", 1_763_937_901_123_456_789,
    Properties(content_type="application/json", user_properties=(("site", "K\u00f6ln"),)),
)  # fmt: skip
SUBJECT = Subject(MESSAGE, LEVELS, "plant-7")

FILLED = [
    ("{line}.{machine}.telemetry", "a.7.telemetry"),
    ("{topic}", "plant/a/7/telemetry"),
    ("{topic[0]}-{topic[3]}", "plant-telemetry"),
    ("{topic[9]}", ""),
    ("{gateway}/{publisher}/{qos}/{retain}", "plant-7/press-7/1/true"),
    ("{{{line}}}", "{a}"),
    ("{{line}}", "{line}"),
    ("{ line }", "a"),
    ("", ""),
    ("no field", "no field"),
    ("{received_at} {received_ns}", "2025-11-23T22:45:01.123456789Z 1763937901123456789"),
    ("{content_type};{property.site}", "application/json;K\u00f6ln"),
    ("{payload.t}{payload.unit}", "21.5\u00b0C"),
    ("{payload.on} {payload.l} {payload.none} {payload.n}", 'true [1,"a"] null 10000000000'),
    ("{payload.gone}.{property.gone}.{response_topic}", ".."),
    ('{default(payload.gone, "none")}', "none"),
    ('{replace(topic, "/", ".")}', "plant.a.7.telemetry"),
    ("{replace(topic, '/', '}')}", "plant}a}7}telemetry"),
    ('{"{" + line + "}"}', "{a}"),
    ("{payload.t * 2 + 1}", "44.0"),
    ('{{"t": {payload.t}, "topic": {json(topic)}}}', '{"t": 21.5, "topic": "plant/a/7/telemetry"}'),
]


@pytest.mark.parametrize(("text", "filled"), FILLED)
def test_a_template_is_filled_in(text, filled):
    assert Template.compile(text, FIELDS).render(SUBJECT) == filled


def test_what_is_missing_is_told_by_name():
    template = Template.compile("{line}.{payload.t}.{ payload.gone }.{topic[9]}", FIELDS)
    assert template.render(SUBJECT) == "a.21.5.."
    assert template.render_whole(SUBJECT) is MISSING
    assert template.missing(SUBJECT) == "payload.gone"
    only_the_topic = Template.compile("{topic[9]}{qos}", FIELDS)
    assert not only_the_topic.may_lack
    assert only_the_topic.render_whole(SUBJECT) == "1"


MISTAKES = [
    ("a{lin}", 2, "did you mean 'line'"),
    ("{xyz123}", 1, "known are line, machine, topic"),
    ("ab{line", 2, "'{' without '}'"),
    ("ab}", 2, "'}' without '{'"),
    ("{}", 1, "empty field"),
    ("{  }", 3, "something is missing"),
    ("{a{b}}", 0, "'{' without '}'"),
    ("{line.__class__}", 1, "has nothing inside"),
    ("{line!r}", 5, "unknown operator '!'"),
    ("{line:>10}", 5, "unexpected ':'"),
    ("x{topic[-1]}", 8, "a whole number"),
    ("{topic[200]}", 1, "at most 200 levels"),
    ("{lower(line}", 1, "'(' without ')'"),
    ("{line + 'x}", 8, "is never closed"),
    ("{'x} {line}", 1, "is never closed"),
    ("{line}{topic + 1}", 15, "1 is a number, not text"),
    ("x\ud800", 1, "half a character"),
    ("x" * 70_000, 0, "longer than"),
]


@pytest.mark.parametrize(("text", "column", "says"), MISTAKES)
def test_a_mistake_is_pointed_at(text, column, says):
    with pytest.raises(TemplateError) as caught:
        Template.compile(text, FIELDS)
    assert says in str(caught.value)
    assert caught.value.column == column


def test_only_what_the_topic_tells_may_be_cached_by_topic():
    for text in ("{topic}", "{line}", "{topic[1]}", "{gateway}", "x", '{upper(line) + "x"}'):
        assert Template.compile(text, FIELDS).by_topic_only
    for text in ("{qos}", "{retain}", "{line}{publisher}", "{payload.t}", "{property.a}", "{received_at}"):
        assert not Template.compile(text, FIELDS).by_topic_only


def test_given_a_filter_of_three_levels_then_a_fourth_level_is_a_mistake():
    with pytest.raises(TemplateError, match="at most 3 levels"):
        Template.compile("{topic[3]}", MessageFields((), 3))


@given(st.text() | st.text(alphabet="{}[]0a topiclne'\"\\.+()"))
def test_any_text_is_a_template_or_an_error_with_a_column(text):
    try:
        template = Template.compile(text, FIELDS)
    except TemplateError as wrong:
        assert 0 <= wrong.column <= len(text)  # noqa: PT017 - both outcomes are right
    else:
        template.render(SUBJECT).encode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_doubled_braces_give_the_text_back(text):
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert Template.compile(doubled, FIELDS).render(SUBJECT) == text
