"""Users and rules as `access` names them: both, or nothing."""

import pytest

from bridge.config import ConfigProblems, load
from bridge.config.rights import load_access, load_rules
from bridge.policy.access import ANONYMOUS, Access, Identity
from tests.config.test_users import ANNA


@pytest.fixture
def folder(tmp_path):
    def write(name, text, mode=0o600):
        file = tmp_path / name
        file.write_text(text)
        file.chmod(mode)
        return file

    write("passwords", ANNA + "\n")
    write("rules.yaml", "- {user: anna, publish: [a/#], subscribe: [b]}\n")
    return write


def test_nothing_named_is_nothing_limited(folder):
    config = load(folder("edgespool.yaml", "version: 1\n"))
    assert load_access(config) == (None, None)


def test_files_are_found_beside_the_configuration(folder, monkeypatch):
    monkeypatch.chdir("/")
    config = load(folder("edgespool.yaml", "version: 1\naccess: {users: passwords, rules: rules.yaml}\n"))
    users, rules = load_access(config)
    assert list(users) == ["anna"]
    rights = Access(rules).rights(Identity("anna"), "c")
    assert rights.may_publish("a/b")
    assert rights.may_receive("b")
    assert not rights.may_publish("b")


def test_rules_mean_the_same_in_a_file_and_in_the_configuration(folder):
    text = "[{user: 'p-*', publish: ['a/{user}/#'], deny: {receive: [x]}}, {anonymous: true, subscribe: [y]}]"
    inline = load(folder("edgespool.yaml", f"version: 1\naccess:\n  rules: {text}\n"))
    assert load_access(inline)[1] == load_rules(folder("rules.yaml", text))


def test_an_empty_list_forbids_everything(folder):
    for rules in (
        load_rules(folder("rules.yaml", "[]\n")),
        load_access(load(folder("edgespool.yaml", "version: 1\naccess: {rules: []}\n")))[1],
    ):
        assert rules == []
        for identity in (ANONYMOUS, Identity("anna")):
            rights = Access(rules).rights(identity, "c")
            assert rights.limited
            assert not any(may("a") for may in (rights.may_publish, rights.may_subscribe, rights.may_receive))


# content of the rules file → place, what is said
MISTAKES = [
    ("", "", r"write \[\] if everything"),
    ("# to do\n", "", r"write \[\] if everything"),
    ("---\n", "", r"write \[\] if everything"),
    ("~\n", "", r"write \[\] if everything"),
    ("other.yaml\n", ":1:1", "list of rules"),
    ("rules:\n- {user: a}\n", ":1:1", "list of rules"),
    ("5\n", ":1:1", "list of rules"),
    ("- {user: a, publsh: [x]}\n", ":1:13", "did you mean 'publish'"),
    ("- user: a\n  publish: [x, 'a/#/b']\n", ":2:16", "whole of the last level"),
    ("- {user: a, publish: ['{name}/x']}\n", ":1:23", "known are"),
    ("- {user: a, publish: x}\n", ":1:22", "must be a list"),
    ("- {user: 5}\n", ":1:10", "must be text"),
    ("- {user: ''}\n", ":1:10", "must not be empty"),
    ("- {user: a, user: b}\n", ":1:13", "stands twice"),
    ("- {user: a, deny: [x]}\n", ":1:19", "must have keys"),
    ("- {user: a, deny: {all: true}}\n", ":1:20", "unknown key 'all'"),
    ("- {anonymous: yes}\n", ":1:15", "true or false"),
    ("- {user: a\n", "", "not YAML"),
    ("user anna\ntopic read #\n", ":1:1", "list of rules"),
    ("- {user: a}\n---\n- {user: b}\n", ":2:1", "second document"),
]


@pytest.mark.parametrize(("text", "place", "says"), MISTAKES)
def test_a_mistake_in_a_rules_file_is_pointed_at(folder, text, place, says):
    file = folder("rules.yaml", text)
    with pytest.raises(ConfigProblems, match=says) as caught:
        load_rules(file)
    assert f"{file}{place}" in str(caught.value)
    assert "access.rules" not in str(caught.value)


def test_rules_that_everyone_can_change_are_refused(folder):
    with pytest.raises(ConfigProblems, match="changed by everyone"):
        load_rules(folder("rules.yaml", "[]\n", 0o666))


def test_the_mistakes_of_both_files_are_told_at_once(folder):
    folder("passwords", "anna:secret\n")
    folder("rules.yaml", "")
    config = load(folder("edgespool.yaml", "version: 1\naccess: {users: passwords, rules: rules.yaml}\n"))
    with pytest.raises(ConfigProblems, match="plain text") as caught:
        load_access(config)
    assert "write [] if" in str(caught.value)
