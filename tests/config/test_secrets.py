import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import ConfigProblems, load, loads, warnings
from bridge.config.secrets import expand, mask_line

ENVIRON = {"A": "one", "EMPTY": ""}

EXPANDED = [
    ("plain", "plain"),
    ("${env:A}", "one"),
    ("x${env:A}y${env:A}", "xoneyone"),
    ("${env:B:-two}", "two"),
    ("${env:B:-}", ""),
    ("${env:EMPTY:-two}", "two"),
    ("${env:EMPTY}", ""),
    ("${env:A:-two}", "one"),
    ("${env:B:-amqp://u:p@h:1/}", "amqp://u:p@h:1/"),
    ("$${env:A}", "${env:A}"),
    ("$A {env:A} $", "$A {env:A} $"),
]


@pytest.mark.parametrize(("text", "expanded"), EXPANDED)
def test_references_are_filled_in(text, expanded):
    assert expand(text, ENVIRON) == expanded


def test_files_and_credentials_lose_their_last_line_break(tmp_path):
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "password").chmod(0o600)
    assert expand(f"${{file:{tmp_path}/password}}", {}) == "s3cret"
    assert expand("${cred:password}", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "s3cret"


def test_a_secret_that_everyone_can_read_is_refused(tmp_path):
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "password").chmod(0o644)
    for reference in (f"${{file:{tmp_path}/password}}", "${cred:password}"):
        with pytest.raises(ValueError, match="chmod 600") as caught:
            expand(reference, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "mode", "warned"),
    [
        ("url: 'amqp://u:hunter2@h/'", 0o644, True),
        ("url: 'amqp://u:hunter2@h/'", 0o640, False),
        ("url: 'amqp://u@h/'", 0o644, False),
        ("url: '${env:URL}'", 0o644, False),
        ("url: 'amqp://u:${env:A}@h/'", 0o644, False),
        ("urls: ['amqp://u@h/', 'amqp://u:hunter2@h/']", 0o644, True),
        ("urls: ['amqp://u@h/', '${env:URL}']", 0o644, False),
    ],
)
def test_a_password_in_a_file_that_everyone_can_read_is_warned_of(tmp_path, monkeypatch, where, mode, warned):
    monkeypatch.setenv("URL", "amqp://u:hunter2@h/")
    monkeypatch.setenv("A", "hunter2")
    file = tmp_path / "edgespool.yaml"
    file.write_text(f"version: 1\nsinks: {{s: {{amqp: {{{where}}}}}}}\nroutes: {{r: {{from: a, to: s}}}}\n")
    file.chmod(mode)
    assert "hunter2" not in str(load(file).describe())
    found = [each for each in warnings(load(file)) if "a password stands" in each]
    assert bool(found) is warned
    assert "hunter2" not in str(found)


def test_a_file_without_end_is_refused():
    with pytest.raises(ValueError, match="longer than"):
        expand("${file:/dev/zero}", {})


def test_what_comes_in_is_not_filled_in_again():
    assert expand("${env:X}", {"X": "${env:X}"}) == "${env:X}"


def test_what_comes_in_cannot_add_keys(monkeypatch):
    monkeypatch.setenv("NAME", "x\nweb: off")
    with pytest.raises(ConfigProblems, match="gateway"):
        loads("version: 1\ngateway: ${env:NAME}")


def test_a_number_from_outside_is_a_number_where_one_is_wanted(monkeypatch):
    monkeypatch.setenv("NUMBER", "0077")
    monkeypatch.setenv("TRUTH", "true")
    config = loads(
        "version: 1\ngateway: ${env:NUMBER}\nlimits: {connections: '${env:NUMBER}'}\n"
        "listeners: [{mqtt: 0.0.0.0:1883, anonymous: '${env:TRUTH}'}]"
    )
    assert config.gateway == "0077"
    assert config.limits.connections == 77
    assert config.listeners[0].anonymous is True


SECRET = "hunter2-xyz"
LEAKS = [
    "gateway: '${env:SECRET}/'",
    "gateway: ${env:UNSET_HERE:-hunter2-xyz/}",
    "store: {max_bytes: '${env:SECRET}'}",
    "web: {listen: '${env:SECRET}'}",
    "web: {listen: '${env:SECRET}:99999'}",
    "listeners: [{mqtt: '${env:SECRET}:1883'}]",
    "limits: {connections: '${env:SECRET}'}",
    "routes: {r: {from: '${env:SECRET}#', to: '${env:SECRET}', when_full: '${env:SECRET}'}}",
    "routes: {r: {from: a, to: b, address: '{${env:SECRET}'}}",
    "routes: {r: {from: a, to: b, address: '{${env:SECRET}}'}}",
    "sinks: {s: {amqp: {url: '${env:SECRET}'}}}",
    "sinks: {s: {amqp: {url: 'amqp://u:hunter2-xyz@h/', tls: {key: x}, oops: 1}}}",
    "sinks: {s: {zeromq: {connect: '${env:SECRET}', bind: '${env:SECRET}'}}}",
]


@pytest.mark.parametrize("line", LEAKS)
def test_no_secret_stands_in_a_report(line, monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    with pytest.raises(ConfigProblems) as caught:
        loads(f"version: 1\n{line}\n")
    report = str(caught.value)
    assert not any(SECRET[at : at + 5] in report for at in range(len(SECRET) - 4)), report


def test_no_secret_stands_in_what_is_in_force(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)
    config = loads(
        "version: 1\n"
        "sinks:\n"
        "  a: {amqp: {url: 'amqp://u:${env:SECRET}@h/'}}\n"
        "  b: {amqp: {url: amqp://u:hunter2-xyz@h/}}\n"
        "routes: {r: {from: ['x/${env:SECRET}', y], to: a, address: '${env:SECRET}'}}\n"
    )
    assert config.routes["r"].address == SECRET
    for shown in (json.dumps(config.describe()), repr(config), str(config)):
        assert SECRET not in shown
    assert config.describe()["routes"]["r"]["address"] == "***"
    assert config.describe()["routes"]["r"]["from"] == ["***", "y"]


@given(st.text())
def test_a_masked_line_keeps_its_columns(line):
    assert len(mask_line(line)) == len(line)


@given(st.text())
def test_any_text_is_filled_in_or_refused(text):
    try:
        assert isinstance(expand(text, ENVIRON), str)
    except ValueError as wrong:
        assert str(wrong)  # noqa: PT017 - both outcomes are right
