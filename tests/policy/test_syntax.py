"""The text of expressions: what it means, what is refused and where, and that no text can do more."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.policy.fields import MessageFields, Subject
from bridge.policy.formula import build
from bridge.policy.syntax import HEIGHT_MAX, Literal, parse, spell
from bridge.policy.tokens import ExpressionError
from bridge.policy.where import Condition
from tests.policy.expressions import LEVELS, message

FIELDS = MessageFields(LEVELS, 4)

MEANS = [
    ("a or b and not c == d", "a or (b and (not (c == d)))"),
    ("a and b and c", "a and b and c"),
    ("not a in b", "not (a in b)"),
    ("a not in b", "a not in b"),
    ("1 + 2 * 3", "1 + (2 * 3)"),
    ("a - b - c", "(a - b) - c"),
    ("-a * b", "(-a) * b"),
    ("- 5", "-5"),
    ("--5", "5"),
    ("a<b", "a < b"),
    ("(((a)))", "a"),
    ("f(a,b )", "f(a, b)"),
    ("a['x'].y[\"z z\"][0]", 'a.x.y["z z"][0]'),
    ("a.and", "a.and"),
    ("[]", "[]"),
    ("1.50", "1.5"),
    ("1e3", "1000.0"),
    ("'it\\'s' + \"\\u00fc\\n\\\\\\/\"", '"it\'s" + "ü\\n\\\\/"'),
    ("'\"' + \"'\"", '"\\"" + "\'"'),
    ("'\\ud83d\\ude00'", '"😀"'),
    ("a\n\tand b", "a and b"),
    ("true == null", "true == null"),
]


@pytest.mark.parametrize(("text", "spelled"), MEANS)
def test_text_means(text, spelled):
    assert spell(parse(text)) == spelled


MISTAKES = [
    ("payload.t ‸= 20", "unknown operator '='; write '=='"),
    ("a ‸&& b", "unknown operator '&&'; write 'and'"),
    ("a ‸|| b", "write 'or'"),
    ("‸!a", "write 'not'"),
    ("1 < a ‸< 3", "write 'a < b and b < c'"),
    ("a == b ‸in c", "comparisons do not chain"),
    ("a not ‸b", "only 'in' can follow"),
    ("a == ‸not b", "into parentheses"),
    ("a > ‸20ms", "'20ms' is not a number"),
    ("‸9223372036854775808", "may be 9223372036854775807 at most"),
    ("‸" + "9" * 4000, "may be 9223372036854775807 at most"),
    ("‸1e999", "too large"),
    ("a ‸b", "an operator is missing"),
    ("a ‸5", "an operator is missing"),
    ("a + ‸", "something is missing here"),
    ("‸", "something is missing here"),
    ("‸)", "unexpected ')'"),
    ("‸(a", "'(' without ')'"),
    ("(a ‸b", "')' is missing"),
    ("‸f(a", "'(' without ')'"),
    ("f(a,‸)", "unexpected ')'"),
    ("a.‸5", "a name must follow the dot"),
    ("a[‸b]", "a whole number or a string"),
    ("a[‸1.5]", "a whole number or a string"),
    ("a[‸-1]", "a whole number or a string"),
    ("a == ‸'x", "is never closed"),
    ("'x‸\\q'", "unknown escape"),
    ("'x‸\\u12'", "unknown escape"),
    ("‸'\\ud800'", "half a character"),
    ("‸'\ud800'", "half a character"),
    ("'x‸\n'", "a control character"),
    ("a ‸; b", "unexpected ';'"),
    ("a *‸* b", "unexpected '*'"),
    ("‸§", "unexpected '§'"),
    ("a ‸if b", "an operator is missing"),
    ("lambda‸: 0", "unexpected ':'"),
]  # fmt: skip


@pytest.mark.parametrize(("marked", "says"), MISTAKES)
def test_a_mistake_is_pointed_at(marked, says):
    before, _, after = marked.partition("‸")
    with pytest.raises(ExpressionError) as caught:
        parse(before + after)
    assert says in str(caught.value)
    assert caught.value.column == len(before)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4000,
        "not " * 1000,
        "-" * 4000,
        "[" * 4000,
        "f(" * 2000,
        "1" + "+1" * 2000,
        "1" + "-1" * 2000,
        "not (" * 600,
        "a[0]" * 1000 + "+",
        "a == " * 800,
        "x" * 5000,
    ],
)
def test_what_is_nested_too_deep_or_too_long_is_refused(text):
    with pytest.raises(ExpressionError):
        build(parse(text), FIELDS)


def test_as_deep_as_is_allowed_it_works():
    text = "(" * HEIGHT_MAX + "qos == 1" + ")" * HEIGHT_MAX
    assert Condition.compile(text[1:-1], FIELDS).holds(Subject(message(b""), LEVELS))
    many = " and ".join(["qos == 1"] * 300)
    assert Condition.compile(many, FIELDS).holds(Subject(message(b""), LEVELS))
    sums = "1" + "+1" * (HEIGHT_MAX - 2)
    assert build(parse(sums), FIELDS).value(None) == HEIGHT_MAX - 1


WORDS = st.sampled_from(
    ["and", "or", "not", "in", "true", "null", "payload", ".t", "[0]", "topic", "line", "qos", "(", ")", "[",
     "]", ",", "==", "<", "-", "+", "*", "/", "%", "1", "2.5", "'a'", '"b"', "len(", "present(", "default(",
     "replace(", "round(", "\\", "'", '"', "=", "!", "1e9", ".", "\ud800", "é", "\0", "1" * 25]
)  # fmt: skip
NOISE = st.text() | st.lists(WORDS, max_size=30).map(" ".join) | st.lists(WORDS, max_size=30).map("".join)
PAYLOADS = st.sampled_from([b"", b"{}", b'{"t": 21.5}', b"[1, 2]", b'"x"', b"\xff"])


@settings(max_examples=600, deadline=None)
@given(NOISE, PAYLOADS)
def test_any_text_is_an_expression_or_an_error_with_a_column_and_nothing_else(text, payload):
    try:
        tree = parse(text)
        formula = build(tree, FIELDS)
    except ExpressionError as wrong:
        assert 0 <= wrong.column <= len(text)  # noqa: PT017 - both outcomes are right
        return
    formula.value(Subject(message(payload), LEVELS))
    assert spell(parse(spell(tree))) == spell(tree)


def best_s(work):
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        with contextlib.suppress(ExpressionError):
            work()
        times.append(time.perf_counter() - begin)
    return min(times)


HOSTILE = ["'" + "\\" * 4000, "1" * 4096, "a." * 2048, " " * 4096, "'a'+" * 1000, "((" * 1000 + "1",
           "[1," * 1000, "a and " * 680, "not(" * 900, '"' * 4095, "1." * 2000, "1e" * 2000]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:6])
def test_no_text_takes_long(text):
    """Bounded by comparison, because a busy machine is slow at everything: 4,096 characters that are fine."""
    ordinary_s = best_s(lambda: parse(" and ".join(["payload.t > 20"] * 215)))
    assert best_s(lambda: parse(text)) < 10 * ordinary_s


def test_a_literal_keeps_its_value():
    assert parse("'a\\tb'") == Literal("a\tb")
