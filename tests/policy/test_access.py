"""Who may do what: held against a model that is slow and obvious, and against hostile names."""

import itertools
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.policy import access as module
from bridge.policy.access import ANONYMOUS, EVERYTHING, Access, Identity, Rule, check_rule_filter, fits

# ---- the model ---------------------------------------------------------------------

WORDS = ["", "a", "b", "$S"]
# Every topic of up to four levels. `z` stands for all the words that no filter names, and filters have
# three levels at most: so a filter covers another exactly if it does within these.
TOPICS = [
    "/".join(levels)
    for depth in range(1, 5)
    for levels in itertools.product([*WORDS, "z"], repeat=depth)
    if "/".join(levels)
]


class Wild:
    """A wildcard: an object, so that no name is one."""


PLUS, HASH = Wild(), Wild()


def tokens(text, user="", client=""):
    """A filter, level by level. What stands for a name becomes that name, whatever it looks like."""
    found = []
    for level in text.split("/"):
        if level in ("+", "#"):
            found.append(PLUS if level == "+" else HASH)
        else:
            found.append(level.replace("{user}", "\0u").replace("{client}", client).replace("\0u", user))
    return found


def model_match(pattern, levels):
    if not pattern:
        return not levels
    if pattern[0] is HASH:
        return True
    if not levels:
        return False
    return (pattern[0] is PLUS or pattern[0] == levels[0]) and model_match(pattern[1:], levels[1:])


def model_matches(pattern, topic):
    if topic.startswith("$") and pattern[0] in (PLUS, HASH):
        return False
    return model_match(pattern, topic.split("/"))


def model_glob(pattern, name):
    if not pattern:
        return not name
    if pattern[0] == "*":
        return model_glob(pattern[1:], name) or (bool(name) and model_glob(pattern, name[1:]))
    return bool(name) and pattern[0] in ("?", name[0]) and model_glob(pattern[1:], name[1:])


def model_filters(rules, kind, identity, client):
    """The filters of one kind that count for a device."""
    for rule in rules:
        if rule.anonymous and identity.user:
            continue
        if rule.user is not None and (not identity.user or not model_glob(rule.user, identity.user)):
            continue
        if rule.client is not None and not model_glob(rule.client, client):
            continue
        for text in getattr(rule, kind):
            if "{user}" in text and not identity.user:
                continue
            pattern = tokens(text, identity.user, client)
            # What was not written with a $ never allows what begins with one.
            if kind.startswith("deny") or text[:1] == "$" or not str(pattern[0]).startswith("$"):
                yield pattern


def model_may(rules, kind, identity, client, topics):
    """Whether one filter allows all of these topics, and none forbids all of them."""
    allowed = any(
        all(model_matches(pattern, topic) for topic in topics)
        for pattern in model_filters(rules, kind, identity, client)
    )
    denied = any(
        all(model_matches(pattern, topic) for topic in topics)
        for pattern in model_filters(rules, f"deny_{kind}", identity, client)
    )
    return allowed and not denied


def filters_of(*more):
    levels = st.sampled_from([*WORDS, "+", *more])
    return (
        st.tuples(st.lists(levels, min_size=0, max_size=3), st.booleans())
        .map(lambda made: "/".join([*made[0], "#"] if made[1] and len(made[0]) < 3 else made[0]))
        .filter(lambda text: check_rule_filter(text) is None)
    )


rule_filters = st.lists(filters_of("{user}", "{client}", "x{user}"), max_size=3).map(tuple)
names = st.sampled_from(["a", "b", "ab", "$S", "#", "+", "a/b", "{client}", "*", ""])
globs = st.none() | st.sampled_from(["a", "b", "*", "a*", "?", "*b", "$*", "#", "**"])
KINDS = ["publish", "subscribe", "receive"]
rules_made = st.lists(
    st.builds(
        Rule,
        user=globs,
        client=globs,
        anonymous=st.booleans(),
        **{prefix + kind: rule_filters for kind in KINDS for prefix in ("", "deny_")},
    ),
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(rules_made, names, names, st.lists(st.sampled_from(TOPICS), min_size=1, max_size=20))
def test_rights_are_those_of_the_model_for_every_topic(rules, user, client, topics):
    identity = Identity(user)
    rights = Access(rules).rights(identity, client)
    for kind in KINDS:
        for topic in topics * 2:  # what is remembered says the same
            expected = model_may(rules, kind, identity, client, [topic])
            assert getattr(rights, f"may_{kind}")(topic) is expected, (kind, topic)


@settings(max_examples=150, deadline=None)
@given(rules_made, names, names, filters_of())
@example([Rule(subscribe=("#",), deny_subscribe=("+/#",))], "a", "a", "#")
@example([Rule(subscribe=("+/#",))], "a", "a", "#")
def test_a_filter_is_allowed_where_every_topic_that_it_brings_is(rules, user, client, wanted):
    identity = Identity(user)
    brought = [topic for topic in TOPICS if model_matches(tokens(wanted), topic)]
    expected = model_may(rules, "subscribe", identity, client, brought)
    assert Access(rules).rights(identity, client).may_subscribe(wanted) is expected


@settings(max_examples=300)
@given(st.text("ab*?", max_size=8), st.text("ab*?", max_size=8))
def test_patterns_of_names_are_those_of_the_model(pattern, name):
    assert fits(pattern, name) is model_glob(pattern, name)


# ---- what the words mean -----------------------------------------------------------


def test_without_rules_everything_is_allowed_and_with_none_of_them_nothing():
    assert Access(None).rights(ANONYMOUS, "c") is EVERYTHING
    assert EVERYTHING.may_publish("$SYS/x")
    assert not EVERYTHING.limited
    nothing = Access([]).rights(Identity("anna"), "c")
    assert nothing.limited
    assert not any(may("a") for may in (nothing.may_publish, nothing.may_subscribe, nothing.may_receive))


def test_a_denial_goes_before_every_permission_in_any_order():
    allow, deny = Rule(publish=("#",)), Rule(user="anna", deny_publish=("a/+/secret",))
    for rules in ([allow, deny], [deny, allow]):
        rights = Access(rules).rights(Identity("anna"), "c")
        assert rights.may_publish("a/b/open")
        assert not rights.may_publish("a/b/secret")
        assert Access(rules).rights(Identity("bert"), "c").may_publish("a/b/secret")


def test_rules_for_the_anonymous_are_not_for_users():
    rules = [Rule(anonymous=True, publish=("open/#",)), Rule(user="*", publish=("users/#",))]
    anonymous, anna = (Access(rules).rights(who, "c") for who in (ANONYMOUS, Identity("anna")))
    assert [anonymous.may_publish(topic) for topic in ("open/x", "users/x")] == [True, False]
    assert [anna.may_publish(topic) for topic in ("open/x", "users/x")] == [False, True]


# ---- hostile names -----------------------------------------------------------------

HOSTILE = [
    "#", "+", "/", "//", "/#", "#/", "+/+", "+/#", "a/+", "a/#", "a/b", "../victim", "victim/", "/victim",
    "victim/#", "victim/+", "$SYS", "$SYS/#", "$share/g/#", "$", ".*", ".", "^victim$", "victim|x", "(v)",
    "[a-z]+", "v?ctim", "v*", "*", "?", "%u", "%c", "%%", "{user}", "{client}", "{user}/{client}", "{}", "{",
    "${env:HOME}", "\\", "victim ", " victim", "VICTIM", "victim\u200b", "ｖictim", "victim\u0301",
]  # fmt: skip
# Everything that somebody with such a name may try, and nothing of it is theirs.
TRIED = [
    "plant/victim/x", "plant/victim", "plant/victim/x/y", "plant//x", "plant/x", "plant", "plant/a/b/x",
    "victim/set", "$SYS/broker/uptime", "$SYS", "a/b", "$SYS/set", "/", "x", "plant/{user}/x",
]  # fmt: skip
TRIED_FILTERS = [
    *TRIED, "#", "+/#", "plant/#", "plant/+/#", "plant/+/x", "plant/+", "+/set", "+/victim/x", "$SYS/#",
    "$SYS/+", "+/+/x", "+/victim/#", "plant/victim/#", "plant/victim/+",
]  # fmt: skip


def test_there_are_forty_of_them():
    assert len(set(HOSTILE)) >= 40


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["user", "client"])
def test_a_hostile_name_opens_nothing(where, name):
    filters = (f"plant/{{{where}}}/x", f"plant/{{{where}}}/#", f"{{{where}}}/set", f"{{{where}}}/#")
    rule = Rule(publish=filters, subscribe=filters, receive=filters)
    user, client = (name, "c") if where == "user" else ("u", name)
    rights = Access([rule]).rights(Identity(user), client)
    own = f"{name}/set"
    for topic in TRIED:
        if name in topic.split("/") and not name.startswith("$"):
            continue  # literally theirs
        assert not rights.may_publish(topic), topic
        assert not rights.may_receive(topic), topic
    for topic_filter in TRIED_FILTERS:
        if name in topic_filter.split("/") and name not in ("#", "+") and not name.startswith("$"):
            continue
        assert not rights.may_subscribe(topic_filter), topic_filter
    # And a harmless one has exactly what it is named after.
    if not set(name) & set("#+/") and not name.startswith("$"):
        assert rights.may_publish(own)
        assert rights.may_subscribe(f"plant/{name}/#")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_not_a_pattern_of_names(name):
    rights = Access([Rule(user="victim", publish=("#",))]).rights(Identity(name), "victim")
    assert not rights.may_publish("x")
    rights = Access([Rule(client="victim", publish=("#",))]).rights(Identity("victim"), name)
    assert not rights.may_publish("x")


@pytest.mark.parametrize("text", ["{user}/+/{client}/#", "a/x-{user}", "{client}", "$SYS/{user}"])
def test_known_placeholders_are_taken(text):
    assert check_rule_filter(text) is None


@pytest.mark.parametrize("text", ["{name}/x", "{user/x", "user}", "{{user}}", "{user }", "", "a/#/b", "x+"])
def test_others_are_refused_and_the_known_ones_said(text):
    wrong = check_rule_filter(text)
    assert wrong
    assert ("{user} and {client}" in wrong) is ("{" in text or "}" in text)


# ---- what it costs -----------------------------------------------------------------


def lines_run(what):
    """How many lines of the module run: what it costs, on any machine."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename != module.__file__:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        what()
    finally:
        sys.settrace(None)
    return count


def worst_rules(number):
    return [Rule(publish=(f"{'+/' * 50}r{at}/#", f"{'a/' * 50}r{at}")) for at in range(number)]


def test_the_time_to_decide_grows_with_the_rules_and_the_levels_and_no_faster():
    few, many = (Access(worst_rules(n)).rights(ANONYMOUS, "c") for n in (20, 80))
    short, long = "/".join(["a"] * 52), "a/" * 199 + "a"
    base = lines_run(lambda: few.may_publish(short))
    assert lines_run(lambda: many.may_publish(short)) <= 4.2 * base
    assert lines_run(lambda: few.may_publish(long)) <= 1.2 * base  # beyond the rules nothing is looked at


@pytest.mark.parametrize("pattern", ["*a*a*a*a*b", "a*" * 30 + "b", "?*" * 30 + "b", "*" * 60 + "b"])
def test_the_time_to_fit_a_name_grows_with_it_and_no_faster(pattern):
    base, double = (lines_run(lambda n=n: fits(pattern, "a" * n)) for n in (2_000, 4_000))
    assert double <= 2.1 * base


def test_given_a_device_that_makes_up_topics_then_what_is_remembered_is_bounded():
    rights = Access([Rule(publish=("a/#",))]).rights(ANONYMOUS, "c")
    for number in range(10_000):
        assert rights.may_publish(f"a/{number}")
        assert not rights.may_publish(f"b/{number}" + "x" * 60_000 * (number < 10))
    known = rights.may_publish._known
    assert len(known) <= module._REMEMBERED_MAX
    assert max(map(len, known)) <= module._REMEMBERED_CHARS_MAX
