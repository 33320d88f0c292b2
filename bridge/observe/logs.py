"""Log lines: a constant event, then facts.

The house logs with the standard library and never formats by itself:

    log.info("sink back sink=%s away_s=%.1f", name, away_s)

The template already says which words are the event and which are facts, so it is
taken apart here, once per template, and each argument is rendered as the value
of its own key. A value that holds a blank, an equals sign or a line break can
therefore neither pass for another fact nor for another line.

Three spellings of the same record, chosen by where stderr leads or by
EDGESPOOL_LOG (`short`, `logfmt`, `json`):

    short    22:41:07 warning  damage skipped  log=uplink begin=4096    a terminal
    logfmt   ts=2025-11-23T22:41:07.120Z level=warning logger=bridge.store.log
             event="damage skipped" log=uplink begin=4096               a file, a pipe
    json     the same as one object a line                              a collector

Under systemd a logfmt line begins with `<4>`, the level as the journal reads it,
and leaves out the time, which the journal keeps itself. EDGESPOOL_LOG_LEVEL
(`debug`, `info`, `warning`, `error`) says how much.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

from bridge.observe.escape import printable

__all__ = ["Form", "choose_form", "formatter", "setup"]

Form = Literal["short", "logfmt", "journal", "json"]

# Libraries that tell their life story at INFO. What they have to say about a
# broken link reaches the operator as a SinkUnavailable of the house anyway.
QUIET: Final = ("asyncio", "pika", "uvicorn", "uvicorn.error", "starlette", "zmq")

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# Levels of syslog, as journald reads them at the start of a line: see sd-daemon(3).
PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
COLOUR: Final = {"debug": "\x1b[2m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}

_FACT: Final = re.compile(r"(?:^|\s)([A-Za-z_]\w*)=(\S+)")
_CONVERSION: Final = re.compile(r"%[-#0 +]*\d*(?:\.\d+)?[sradiouxXeEfFgGc]")


def setup(stream: TextIO | None = None, environ: Mapping[str, str] | None = None) -> None:
    """Afterwards every record of the process goes to `stream` (stderr), and nowhere else."""
    stream = sys.stderr if stream is None else stream
    environ = os.environ if environ is None else environ
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(choose_form(stream, environ), colour="NO_COLOR" not in environ))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    level = LEVELS.get(environ.get("EDGESPOOL_LOG_LEVEL", "").lower(), logging.INFO)
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    # A reader of stderr that went away must not be answered with a traceback per line.
    logging.raiseExceptions = False


def choose_form(stream: TextIO, environ: Mapping[str, str]) -> Form:
    """What the operator asked for, or what suits the place that `stream` leads to."""
    asked = environ.get("EDGESPOOL_LOG", "").lower()
    if asked in ("short", "json"):
        return cast(Form, asked)
    if asked != "logfmt" and stream.isatty():
        return "short"
    return "journal" if _is_journal(stream, environ) else "logfmt"


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is the socket that systemd named in JOURNAL_STREAM, as `device:inode`."""
    try:
        here = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}"


def formatter(form: Form, *, colour: bool = False) -> logging.Formatter:
    """Return what turns one record into one line (in the short form, a traceback adds lines)."""
    last: Processor
    match form:
        case "json":
            last = structlog.processors.JSONRenderer(ensure_ascii=False)
        case "short":
            last = _Short(colour)
        case "logfmt":
            last = structlog.processors.LogfmtRenderer(bool_as_flag=False)
        case "journal":
            last = _Journal()
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_take_apart, structlog.processors.format_exc_info],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _escape, last],
        use_get_message=False,
        pass_foreign_args=True,
    )


@lru_cache(maxsize=1024)  # templates are constants of the source; a third party may build its own at run time
def _facts_of(template: str) -> tuple[str, tuple[tuple[str, str, int], ...]] | None:
    """Return `(event, ((key, spelling, arguments), ...))`, or None for a text of another build."""
    first = _FACT.search(template)
    event = template if first is None else template[: first.start()]
    if "%" in event:
        return None
    facts = []
    at = len(event)
    while at < len(template):
        fact = _FACT.match(template, at)
        if fact is None:
            return None
        key, spelling = fact.groups()
        facts.append((key, spelling, len(_CONVERSION.findall(spelling))))
        at = fact.end()
    return event.strip(), tuple(facts)


def _take_apart(_logger: Any, level: str, record: EventDict) -> EventDict:
    """Make of a standard record: ts, level, logger, event, and its facts in the order of the template."""
    source: logging.LogRecord = record["_record"]
    args = record.pop("positional_args") or ()
    second, millisecond = divmod(round(source.created * 1000), 1000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    told: EventDict = {
        "ts": f"{moment}.{millisecond:03d}Z",
        "level": level,
        "logger": source.name,
        "event": "",
    }
    template = str(record.pop("event"))
    parts = _facts_of(template) if isinstance(args, tuple) else None
    if parts is None or sum(count for _, _, count in parts[1]) != len(args):
        told["event"] = template % args if args else template
    else:
        told["event"], facts = parts
        at = 0
        for key, spelling, count in facts:
            # A fact may not take the place of the level or the time.
            told[f"{key}_" if key in told else key] = _value(spelling, args[at : at + count])
            at += count
    told.update(record)
    return told


def _value(spelling: str, args: tuple[object, ...]) -> object:
    """The value of one fact: a number stays one, so that JSON has it as one."""
    if len(args) == 1 and spelling in ("%s", "%d", "%r") and type(args[0]) in (bool, int, float):
        return args[0]
    text = spelling % args if args else spelling
    if len(args) == 1 and type(args[0]) is float and _CONVERSION.fullmatch(spelling):
        return float(text)
    return text


def _escape(_logger: Any, _level: str, told: EventDict) -> EventDict:
    for key, value in told.items():
        if isinstance(value, str) and key != "exception":
            told[key] = printable(value)
    if "exception" in told:
        told["exception"] = "\n".join(map(printable, told["exception"].split("\n")))
    return told


class _Journal:
    """Logfmt behind the level as a prefix, without the time."""

    def __init__(self) -> None:
        self._logfmt = structlog.processors.LogfmtRenderer(bool_as_flag=False)

    def __call__(self, logger: Any, level: str, told: EventDict) -> str:
        del told["ts"]
        return f"<{PRIORITY.get(level, 6)}>{self._logfmt(logger, level, told)}"


class _Short:
    """For a person: the local time, the level when it is not INFO, the event, the facts."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, _logger: Any, level: str, told: EventDict) -> str:
        for key in ("ts", "level", "logger"):
            del told[key]
        event = told.pop("event")
        exception = told.pop("exception", None)
        facts = " ".join(f"{key}={_quoted(value)}" for key, value in told.items())
        paint = COLOUR.get(level, "") if self._colour else ""
        line = f"{time.strftime('%H:%M:%S')} {level:<8} {event}{'  ' if facts else ''}{facts}"
        if paint:
            line = f"{paint}{line}\x1b[0m"
        return line if exception is None else f"{line}\n{exception}"


def _quoted(value: object) -> str:
    text = str(value)
    if text and not any(sign in text for sign in ' ="'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
