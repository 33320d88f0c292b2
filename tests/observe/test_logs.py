"""One record, three spellings, and nobody can forge a fourth."""

import ast
import io
import json
import logging
import os
import re
from pathlib import Path

import pytest

from bridge.observe.escape import printable
from bridge.observe.logs import Form, choose_form, formatter, setup

ROOT = Path(__file__).parents[2]
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
FORMS: list[Form] = ["short", "logfmt", "journal", "json"]


def told(form: Form, template: object, *args: object, level: int = logging.INFO, exc_info=None) -> str:
    record = logging.LogRecord("bridge.store.log", level, __file__, 1, template, args, exc_info)
    record.created = 1_763_930_467.12
    return formatter(form).format(record)


LOGFMT = [
    ("sink back sink=%s away_s=%.1f", ("cloud", 12.34), 'event="sink back" sink=cloud away_s=12.3'),
    ("started", (), "event=started"),
    ("listening mqtt=%s:%d", ("127.0.0.1", 1883), "event=listening mqtt=127.0.0.1:1883"),
    ("sink down reason=%s", ("no route to host",), 'event="sink down" reason="no route to host"'),
    ("torn kept=%s", (None,), "event=torn kept=None"),
    ("full policy=drop_oldest lost=%d", (3,), "event=full policy=drop_oldest lost=3"),
    ("state level=%s", ("x",), "event=state level_=x"),
    ("100%% done", (), 'event="100%% done"'),
    ("%s gone", ("far end",), 'event="far end gone"'),
    ("mixed a=%d then words", (1,), 'event="mixed a=1 then words"'),
]


@pytest.mark.parametrize(("template", "args", "line"), LOGFMT)
def test_the_template_says_which_words_are_facts(template, args, line):
    assert told("logfmt", template, *args) == (
        f"ts=2025-11-23T20:41:07.120Z level=info logger=bridge.store.log {line}"
    )


LOGS = [
    pytest.param(call.args[0], id=f"{path.relative_to(ROOT)}:{call.lineno}")
    for path in sorted((ROOT / "bridge").rglob("*.py"))
    for call in ast.walk(ast.parse(path.read_text()))
    if isinstance(call, ast.Call) and ast.unparse(call.func) in [f"log.{level}" for level in LEVELS]
]


@pytest.mark.parametrize("template", LOGS)
def test_every_line_of_the_log_begins_with_an_event_that_is_always_the_same(template):
    """Who looks for an event, or counts it, cannot do so when it is made of what happened."""
    assert isinstance(template, ast.Constant | ast.JoinedStr)
    parts = template.values if isinstance(template, ast.JoinedStr) else [template]
    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "word" for part in parts)
    event = text.partition("=")[0]
    assert "%" not in event


FORGERIES = [
    "x\n2025-11-23 level=error event=forged",
    "x\r\nlevel=error",
    "\x1b[2J\x1b[31mred",
    "x\u2028level=error",
    "\u202egnihton",
    "a\x9b31m",
    'a" level=error b="',
    "lone \udc80 surrogate",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("template", ["refused topic=%s", "%s refused"])
def test_given_a_hostile_value_when_logged_then_it_is_one_printable_line(form, forgery, template):
    line = told(form, template, forgery)
    assert line.isprintable()
    if form == "json":
        assert json.loads(line)["level"] == "info"
    elif template.endswith("%s"):
        # Outside of quotes there is exactly one level, and it is ours.
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert bare.count("level=") == (1 if form in ("logfmt", "journal") else 0)


def test_json_keeps_numbers_as_numbers():
    line = json.loads(told("json", "commit n=%d ms=%.2f sync=%s path=%s", 7, 1.239, True, "/a b"))
    assert (line["n"], line["ms"], line["sync"], line["path"]) == (7, 1.24, True, "/a b")
    assert line["event"] == "commit"


def test_the_journal_gets_the_level_as_a_prefix_and_keeps_the_time_itself():
    line = told("journal", "damage skipped log=%s", "uplink", level=logging.WARNING)
    assert line == '<4>level=warning logger=bridge.store.log event="damage skipped" log=uplink'


def test_given_an_exception_when_logged_then_machines_get_one_line_and_people_a_traceback():
    try:
        raise ValueError("first\nlevel=error \x1b[31m")
    except ValueError as error:
        seen = (type(error), error, error.__traceback__)
    assert told("logfmt", "broken", exc_info=seen).isprintable()
    assert "Traceback" in json.loads(told("json", "broken", exc_info=seen))["exception"]
    short = told("short", "broken", exc_info=seen)
    assert "Traceback" in short
    assert "\x1b" not in short


def test_printable_leaves_ordinary_text_of_any_language_alone():
    for text in ("plant/7/température", "温度/1", "a b", ""):
        assert printable(text) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_form_follows_the_place(tmp_path):
    assert choose_form(Terminal(), {}) == "short"
    assert choose_form(Terminal(), {"EDGESPOOL_LOG": "json"}) == "json"
    assert choose_form(Terminal(), {"EDGESPOOL_LOG": "logfmt"}) == "logfmt"
    assert choose_form(io.StringIO(), {}) == "logfmt"
    with open(tmp_path / "journal", "w") as stream:
        here = os.fstat(stream.fileno())
        assert choose_form(stream, {"JOURNAL_STREAM": f"{here.st_dev}:{here.st_ino}"}) == "journal"
        assert choose_form(stream, {"JOURNAL_STREAM": "1:2"}) == "logfmt"


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    kept = (root.handlers[:], root.level, logging.raiseExceptions)
    yield root
    root.handlers[:], root.level, logging.raiseExceptions = kept


def test_setup_speaks_once_and_keeps_libraries_quiet(root_logger):
    stream = io.StringIO()
    setup(stream, {})
    setup(stream, {})
    logging.getLogger("bridge.app").info("started gateway=%s", "plant-7")
    logging.getLogger("bridge.app").debug("packet")
    logging.getLogger("pika.adapters").info("created channel 1")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("pika.adapters").warning("socket broke")
    lines = stream.getvalue().splitlines()
    assert [line.split("event=")[1] for line in lines] == ["started gateway=plant-7", '"socket broke"']
