"""YAML as data and nothing else: what scalars mean, and what hostile text may cost (M10)."""

import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import Config, ConfigProblems, load, loads, parse
from bridge.config.parse import resolve

SCALARS = [
    ("on", "on"),
    ("yes", "yes"),
    ("off", "off"),
    ("0123", 123),
    ("-7", -7),
    ("0o17", 15),
    ("0x1F", 31),
    ("1_000", "1_000"),
    ("12:30:45", "12:30:45"),
    ("2025-01-01", "2025-01-01"),
    ("1.5", 1.5),
    ("1e3", 1000.0),
    (".5", 0.5),
    (".", "."),
    ("1.2.3", "1.2.3"),
    ("true", True),
    ("True", True),
    ("tRUE", "tRUE"),
    ("~", None),
    ("null", None),
    ("9" * 5000, "9" * 5000),
    ("=", "="),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=lambda value: str(value)[:10])
def test_scalars_mean_what_yaml_1_2_says(text, value):
    resolved = resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)


def test_quotes_and_blocks_are_text():
    document = parse.parse("a: '1'\nb: \"true\"\nc: |\n  null\n", "x")
    assert document.data == {"a": "1", "b": "true", "c": "null\n"}
    assert document.problems == []


def test_every_value_knows_its_place():
    document = parse.parse("a:\n  - {b: 1}\n  -   c\n", "x")
    assert document.data == {"a": [{"b": 1}, "c"]}
    place = document.places["a", 0, "b"]
    assert (place.line, place.column, place.key_line, place.key_column) == (2, 9, 2, 6)
    assert (document.places["a", 1].line, document.places["a", 1].column) == (3, 7)


LOL = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join(['*' + chr(97 + level)] * 9)}]\n"
    for level in range(8)
)
HOSTILE = {
    "ten megabytes": "a" * (10 << 20),
    "ten megabytes of keys": "".join(f"k{number}: 1\n" for number in range(800_000)),
    "a bomb of nine levels": LOL,
    "an alias to itself": "a: &a [*a]",
    "a command": "!!python/object/apply:os.system ['exit 1']",
    "a module": "version: !!python/module:antigravity x",
    "a class": "!!python/object/new:type {args: [x, [], {}]}",
    "brackets": "[" * 1_000_000,
    "braces": "{" * 1_000_000,
    "dashes": "- " * 500_000,
    "question marks": "? " * 500_000,
    "many values": "version: 1\nx: [" + "1, " * 300_000 + "]",
    "the same key again and again": "version: 1\n" * 90_000,
    "unknown keys in one line": "{"
    + "".join(f"k{number}: 1, " for number in range(9_000))
    + " " * 900_000
    + "}",
    "many references": "version: 1\nx: [" + "${env:A:-b}, " * 9_000 + "]",
    "unknown keys": "".join(f"k{number}: 1\n" for number in range(15_000)),
    "one long key": "a" * 1_000_000 + ": 1",
    "one long number": "version: " + "9" * 1_000_000,
    "one long reference": "version: 1\ngateway: '" + "${" * 400_000 + "'",
    "one long address": "version: 1\nroutes: {r: {from: a, to: b, address: '" + "{x" * 300_000 + "'}}",
    "one long filter": "version: 1\nroutes: {r: {from: '" + "a/" * 400_000 + "', to: b}}",
    "anchors": "".join(f"k{number}: &a{number} 1\n" for number in range(15_000)),
    "not a number": "version: .nan",
    "control characters": "version: \x00",
    "spaces": " " * 1_000_000,
    "nothing": "",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_rejected_in_no_time(name, tmp_path):
    path = tmp_path / "hostile.yaml"
    path.write_text(HOSTILE[name])
    began = time.thread_time()
    with pytest.raises(ConfigProblems) as caught:
        load(path)
    assert time.thread_time() - began < 0.2  # of the processor: the machine that tests is busy
    assert len(str(caught.value)) < 50_000


def test_a_file_that_is_not_text_is_pointed_at(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"version: 1\ngateway: \xff\n")
    with pytest.raises(ConfigProblems, match=r"a\.yaml:2:10: is not UTF-8 text"):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b"])
def test_a_file_that_cannot_be_read_says_why(tmp_path, name):
    with pytest.raises(ConfigProblems, match="cannot be read"):
        load(f"{tmp_path}/{name}")


WORDS = """
    version gateway listeners mqtt anonymous store path max_bytes sinks amqp zeromq bind connect url routes
    from to address commands queue sink receipt batch messages bytes wait max_age when_full
    web listen off limits 1 true 1GiB 2s # a/+
    ${env:X} {x} tcp://1:1 127.0.0.1:1 - ? : , [ ] { } & * ! | > ' \" % @ ` ~ .nan 0x1 --- ...
"""
words = st.sampled_from(WORDS.split())
yaml_like = st.lists(words | st.sampled_from([" ", ": ", "\n", "\n  ", "\n    ", "- ", "é", "\t"])).map(
    "".join
)
trees = st.recursive(
    words | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.text() | yaml_like | trees.map(lambda tree: yaml.safe_dump(tree)))
def test_any_text_is_a_config_or_a_config_error(text):
    try:
        config = loads(text)
    except ConfigProblems as wrong:
        assert wrong.problems  # noqa: PT017 - both outcomes are right
    else:
        assert isinstance(config, Config)


@given(trees)
def test_any_tree_below_the_right_version_is_a_config_or_a_config_error(tree):
    known = {"version": 1, "routes": {"a": tree}, "sinks": {"b": tree}, "web": tree, "listeners": [tree]}
    known["commands"] = {"c": tree, "d": {"from": {"amqp": tree}, "to": tree}}
    try:
        loads(yaml.safe_dump(known))
    except ConfigProblems as wrong:
        assert all(problem.line for problem in wrong.problems)  # noqa: PT017


@given(yaml_like.filter(lambda text: "!" not in text))
def test_the_parser_in_c_and_the_one_in_python_agree(text):
    documents = []
    for loader in (parse._Loader, yaml.SafeLoader):
        kept, parse._Loader = parse._Loader, loader
        try:
            documents.append(parse.parse(text, "x"))
        finally:
            parse._Loader = kept
    in_c, in_python = documents
    if not in_c.problems and not in_python.problems:
        assert in_c.data == in_python.data
        # A document that is only `---` has no value, so where it stands is anyone's guess.
        if in_c.data is not None:
            assert in_c.places == in_python.places
