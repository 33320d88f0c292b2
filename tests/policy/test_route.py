import pytest

from bridge.message import Message, Properties
from bridge.policy.route import Route
from bridge.policy.template import TemplateError
from bridge.policy.tokens import ExpressionError
from bridge.topic import Pattern

S = 1_000_000_000
NOW = 1_800_000_000 * S  # 2027


def route(*filters, **options):
    return Route("r", [Pattern.parse(text) for text in filters or ("#",)], "cloud", **options)


def message(topic="plant/a/7/telemetry", received_ns=NOW, expiry_s=None, **fields):
    properties = None if expiry_s is None else Properties(message_expiry_interval_s=expiry_s)
    return Message(topic, b"", received_ns=received_ns, properties=properties, **fields)


def test_a_route_wants_what_any_of_its_filters_matches():
    both = route("plant/{line}/+/telemetry", "alarm/#")
    assert both.wants("plant/a/7/telemetry")
    assert both.wants("alarm")
    assert not both.wants("plant/a/7/state")
    assert not route("#").wants("$SYS/broker")


def test_the_default_address_is_the_topic():
    assert route().address(message()) == "plant/a/7/telemetry"


def test_the_first_filter_that_matches_names_the_levels():
    two = route("a/{x}", "b/+/{x}", address="{x}@{gateway}", gateway="g")
    assert two.address(message("b/1/2")) == "2@g"
    assert two.address(message("a/1")) == "1@g"


def test_an_address_that_depends_on_the_message_is_not_remembered():
    by_qos = route(address="q{qos}")
    assert [by_qos.address(message(qos=qos)) for qos in (0, 1, 2)] == ["q0", "q1", "q2"]


def test_a_name_that_only_some_filters_have_is_refused():
    with pytest.raises(TemplateError, match="unknown field 'machine'"):
        route("a/{line}", "b/{line}/{machine}", address="{machine}")


def test_a_level_cannot_be_named_like_a_field():
    with pytest.raises(ValueError, match="a level cannot be named 'topic'"):
        route("a/{topic}")


def test_a_level_cannot_be_named_like_a_word_of_the_language():
    for name in ("and", "not", "in", "true", "payload", "property"):
        with pytest.raises(ValueError, match=f"a level cannot be named '{name}'"):
            route(f"a/{{{name}}}")


def test_a_condition_may_use_the_levels_that_every_filter_has():
    both = route("a/{line}", "b/{line}/{machine}", where='line == "x"')
    assert both.rules.where.holds(both.dress.subject(message("a/x"))) is True
    assert both.rules.where.holds(both.dress.subject(message("b/y/1"))) is False
    with pytest.raises(ExpressionError, match="unknown field 'machine'"):
        route("a/{line}", "b/{line}/{machine}", where='machine == "x"')


def test_a_level_deeper_than_every_filter_is_refused():
    with pytest.raises(TemplateError, match="at most 2 levels"):
        route("a/+", "b", address="{topic[2]}")


EXPIRED = [
    # max_age_s, expiry_s, age in seconds, expired
    (None, None, 10**9, False),
    (60.0, None, 59, False),
    (60.0, None, 60, True),
    (None, 5, 4, False),
    (None, 5, 5, True),
    (None, 0, 0, True),
    (3600.0, 5, 6, True),
    (3.0, 5, 4, True),
    (60.0, 5, -3600, False),  # the clock went back an hour
]


@pytest.mark.parametrize(("max_age_s", "expiry_s", "age_s", "expired"), EXPIRED)
def test_a_message_expires_by_the_shorter_of_two_ages(max_age_s, expiry_s, age_s, expired):
    old = message(received_ns=NOW - age_s * S, expiry_s=expiry_s)
    assert route(max_age_s=max_age_s).expired(old, NOW) is expired


def test_given_a_clock_that_began_in_1970_then_nothing_expires_when_it_is_set():
    assert not route(max_age_s=60.0).expired(message(received_ns=5 * S), NOW)
