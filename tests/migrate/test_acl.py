"""What an ACL file of Mosquitto becomes, judged by what devices may do and not by how it is written."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config.access import Access as AccessSection
from bridge.config.access import compile_rules
from bridge.errors import ConfigError
from bridge.migrate.acl import read_acl
from bridge.migrate.conf import Setting
from bridge.policy.access import ANONYMOUS, Access, Identity
from bridge.topic import matches

OWNER = Setting("acl_file", "acl", "mosquitto.conf", 3)


def access(tmp_path, text):
    path = tmp_path / "acl"
    path.write_text(text)
    return Access(compile_rules(AccessSection(rules=read_acl(path, OWNER).rules).rules))


def may(access, user, topic, client="c"):
    """What one device may do with a topic: some of `s`ubscribe, `p`ublish, `r`eceive."""
    rights = access.rights(Identity(user) if user else ANONYMOUS, client)
    kinds = (("s", rights.may_subscribe), ("p", rights.may_publish), ("r", rights.may_receive))
    return "".join(letter for letter, allowed in kinds if allowed(topic))


@pytest.mark.parametrize(
    ("text", "user", "topic", "rights"),
    [
        # Subscribing is always allowed; what comes of it is not.
        ("", "", "a", "s"),
        ("# nothing", "bob", "a", "s"),
        ("topic read a", "", "a", "sr"),
        ("topic write a", "", "a", "sp"),
        ("topic readwrite a", "", "a", "spr"),
        ("topic a", "", "a", "spr"),
        ("topic a/#", "", "a", "spr"),
        # Lines above the first user are for those without a name, and for nobody else.
        ("topic a\nuser bob\ntopic b", "bob", "a", "s"),
        ("topic a\nuser bob\ntopic b", "bob", "b", "spr"),
        ("topic a\nuser bob\ntopic b", "", "b", "s"),
        ("user bob\ntopic b\nuser eve\ntopic e\nuser bob\ntopic c", "bob", "c", "spr"),
        ("topic a/#\ntopic deny a/x", "", "a/x", "s"),
        ("user bob\ntopic read $SYS/#", "bob", "$SYS/uptime", "sr"),
        ("topic #", "", "$SYS/uptime", "s"),
        ("pattern write a/%u/%c", "bob", "a/bob/c", "sp"),
        ("pattern write a/%u/%c", "", "a//c", "s"),
        ("pattern read a-%u-z/+", "bob", "a-bob-z/1", "sr"),
        ("pattern a/%u", "b/c", "a/b/c", "s"),
        ("topic a/%u", "bob", "a/bob", "s"),
        ("topic readwrite   spaced out/x", "", "spaced out/x", "spr"),
    ],
)
def test_a_line_means_what_it_meant(tmp_path, text, user, topic, rights):
    assert may(access(tmp_path, text), user, topic) == rights


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("topic a\ntpoic b", "acl:2: 'tpoic' is not known"),
        ("user", "acl:1 user: has no name"),
        ("user a*", "acl:1 user: 'a*': * and ? stand for other characters"),
        ("topic", "acl:1 topic: '': a topic filter must have"),
        ("topic a b", "acl:1 topic: 'a' must be one of read"),
        ("topic raed a", "acl:1 topic: 'raed' must be one of read, write, readwrite, deny"),
        ("topic a#", "acl:1 topic: 'a#': # must be the whole of the last level"),
        ("topic a/{user}", "a rule cannot say { or } but for {user} and {client}"),
        ("pattern a/{client}", "a rule cannot say { or }"),
    ],
)
def test_mistakes_say_file_and_line(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        access(tmp_path, text)
    assert says in str(caught.value)


def test_a_missing_file_is_said_where_it_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^mosquitto\.conf:3 acl_file: .*nowhere cannot be read: No such"):
        read_acl(Path(tmp_path / "nowhere"), OWNER)


# ---- against a model of what Mosquitto decides ---------------------------------------

LEVELS = st.sampled_from(["a", "b", "bob", "eve", "c1"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=3).map("/".join)
FILTERS = st.builds(
    lambda levels, last: "/".join([*levels, *last]),
    st.lists(st.sampled_from(["a", "b", "+", "bob"]), min_size=1, max_size=2),
    st.sampled_from([[], ["#"]]),
)
PATTERNS = st.builds(
    lambda levels, last: "/".join([*levels, *last]),
    st.lists(st.sampled_from(["a", "+", "%u", "%c"]), min_size=1, max_size=3),
    st.sampled_from([[], ["#"]]),
)
WORDS = st.sampled_from(["read", "write", "readwrite", "deny"])
LINES = st.lists(
    st.one_of(
        st.tuples(st.just("user"), st.sampled_from(["bob", "eve"]), st.just("")),
        st.tuples(st.just("topic"), WORDS, FILTERS),
        st.tuples(st.just("pattern"), WORDS, PATTERNS),
    ),
    max_size=8,
)


def mosquitto_allows(lines, user, client, topic, kind):
    """Its own lines first, denials before permissions, then the patterns in the same way."""
    current, own, patterns = "", [], []
    for word, first, topic_filter in lines:
        if word == "user":
            current = first
        elif word == "topic" and current == user:
            own.append((first, topic_filter))
        elif word == "pattern" and (user or "%u" not in topic_filter):
            patterns.append((first, topic_filter.replace("%u", user).replace("%c", client)))
    for entries in (own, patterns):
        found = [word for word, topic_filter in entries if matches(topic_filter, topic)]
        if "deny" in found:
            return False
        if any(word in (kind, "readwrite") for word in found):
            return True
    return False


@given(LINES, st.sampled_from(["", "bob", "eve", "zoe"]), TOPICS)
def test_nobody_may_more_than_with_mosquitto_and_only_pattern_deny_makes_it_less(
    tmp_path_factory, lines, user, topic
):
    text = "\n".join(" ".join(line).strip() for line in lines)
    allowed = access(tmp_path_factory.getbasetemp(), text)
    strict = any(word == "pattern" and first == "deny" for word, first, _ in lines)
    for letter, kind in (("p", "write"), ("r", "read")):
        theirs = mosquitto_allows(lines, user, "c1", topic, kind)
        ours = letter in may(allowed, user, topic, "c1")
        assert theirs or not ours
        assert strict or ours == theirs
    assert "s" in may(allowed, user, topic)
