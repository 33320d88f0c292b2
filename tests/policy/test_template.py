import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.message import Message
from bridge.policy.template import Template, TemplateError

MESSAGE = Message("plant/a/7/telemetry", b"", qos=1, retain=True, publisher="press-7")
LEVELS = {"line": "a", "machine": "7"}

FILLED = [
    ("{line}.{machine}.telemetry", "a.7.telemetry"),
    ("{topic}", "plant/a/7/telemetry"),
    ("{topic[0]}-{topic[3]}", "plant-telemetry"),
    ("{topic[9]}", ""),
    ("{gateway}/{publisher}/{qos}/{retain}", "plant-7/press-7/1/true"),
    ("{{{line}}}", "{a}"),
    ("{{line}}", "{line}"),
    ("", ""),
    ("no field", "no field"),
]


@pytest.mark.parametrize(("text", "address"), FILLED)
def test_a_template_is_filled_in(text, address):
    assert Template.compile(text, LEVELS).render(MESSAGE, LEVELS, "plant-7") == address


MISTAKES = [
    ("a{lin}", 2, "did you mean 'line'"),
    ("{xyz123}", 1, "known are line, machine, topic"),
    ("ab{line", 2, "'{' without '}'"),
    ("ab}", 2, "'}' without '{'"),
    ("{}", 1, "empty field"),
    ("{a{b}}", 0, "'{' without '}'"),
    ("{line.__class__}", 1, "unknown field"),
    ("{line!r}", 1, "unknown field"),
    ("{line:>10}", 1, "unknown field"),
    ("{topic[-1]}", 1, "unknown field"),
    ("{topic[200]}", 1, "at most 200 levels"),
    ("{ line }", 1, "did you mean 'line'"),
]


@pytest.mark.parametrize(("text", "column", "says"), MISTAKES)
def test_a_mistake_is_pointed_at(text, column, says):
    with pytest.raises(TemplateError) as caught:
        Template.compile(text, LEVELS)
    assert caught.value.column == column
    assert says in str(caught.value)


def test_only_fields_of_the_topic_may_be_cached_by_topic():
    for text in ("{topic}", "{line}", "{topic[1]}", "{gateway}", "x"):
        assert Template.compile(text, LEVELS).by_topic_only
    for text in ("{qos}", "{retain}", "{line}{publisher}"):
        assert not Template.compile(text, LEVELS).by_topic_only


def test_given_a_filter_of_three_levels_then_a_fourth_level_is_a_mistake():
    with pytest.raises(TemplateError, match="at most 3 levels"):
        Template.compile("{topic[3]}", (), levels_max=3)


@given(st.text() | st.text(alphabet="{}[]0a topiclne"))
def test_any_text_is_a_template_or_an_error_with_a_column(text):
    try:
        template = Template.compile(text, LEVELS)
    except TemplateError as wrong:
        assert 0 <= wrong.column <= len(text)  # noqa: PT017 - both outcomes are right
    else:
        assert isinstance(template.render(MESSAGE, LEVELS, "g"), str)


@given(st.text())
def test_doubled_braces_give_the_text_back(text):
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert Template.compile(doubled).render(MESSAGE, {}, "g") == text
