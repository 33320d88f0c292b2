import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.topic import LEVELS_MAX, TOPIC_BYTES_MAX, Pattern, check_topic_filter, check_topic_name, matches

levels = st.lists(st.text("a+#ä", max_size=3), min_size=1, max_size=6)


@given(levels)
def test_a_filter_is_valid_exactly_where_its_wildcards_stand_alone(parts):
    text = "/".join(parts)
    alone = all("+" not in part or part == "+" for part in parts)
    last = all("#" not in part or (part == "#" and nth == len(parts) - 1) for nth, part in enumerate(parts))
    assert (check_topic_filter(text) is None) is (bool(text) and alone and last)


@given(levels)
def test_a_name_is_a_filter_without_wildcards(parts):
    text = "/".join(parts)
    assert (check_topic_name(text) is None) is (bool(text) and "+" not in text and "#" not in text)


@pytest.mark.parametrize("check", [check_topic_name, check_topic_filter])
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "at least one character"),
        ("a\0b", "U+0000"),
        ("/" * LEVELS_MAX, "levels"),
        ("a" * (TOPIC_BYTES_MAX + 1), "bytes"),
        ("ä" * (TOPIC_BYTES_MAX // 2 + 1), "bytes"),
        ("/" * (LEVELS_MAX - 1), None),
        ("a" * TOPIC_BYTES_MAX, None),
        ("ä" * (TOPIC_BYTES_MAX // 2), None),
        (" ", None),
        ("\ufeff", None),
    ],
)
def test_the_bounds_of_names_and_filters(check, text, wrong):
    found = check(text)
    assert found is None if wrong is None else found is not None and wrong in found


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/#", "a", True),
        ("a/#", "a/", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("+/+", "/", True),
        ("#", "$SYS", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/+", "$SYS/a", True),
        ("a/$b/#", "a/$b/c", True),
        ("a", "A", False),
    ],
)
def test_one_filter_against_one_topic(topic_filter, topic, expected):
    assert matches(topic_filter, topic) is expected


def test_a_pattern_names_levels():
    pattern = Pattern.parse("plant/{line}/+/#")
    assert pattern.topic_filter == "plant/+/+/#"
    assert pattern.matches("plant/a/b")
    assert pattern.levels("plant/a/b/c") == {"line": "a"}


@pytest.mark.parametrize("text", ["a{b}", "{a}/{a}", "{1}", "{}", "{a}b/c", "a#"])
def test_a_pattern_that_cannot_be_meant_says_why(text):
    with pytest.raises(ValueError, match=r"level|#"):
        Pattern.parse(text)
