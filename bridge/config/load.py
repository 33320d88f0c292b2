"""A file → a Config, or a report of every mistake in it.

    read → parse (places) → fill in → model ┐
                                └─ routes ──┴→ problems, each with line, column and caret

The model and the checks across parts both run over the same plain values, so all
their mistakes come in one report. Only text that is not YAML stops earlier.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge.config.explain import OVERRIDE, Report
from bridge.config.model import DEFAULT, Config
from bridge.config.parse import DOCUMENT_BYTES_MAX, Document, parse
from bridge.config.problem import ConfigProblems, Problem
from bridge.config.secrets import expand

__all__ = ["load", "loads", "read_text"]


def load(
    path: Path | str | None, overrides: Mapping[str, Any] | None = None, *, trials: bool = False
) -> Config:
    """Read a configuration; None stands for the one that runs without a file.

    `overrides` replace or add single values by their path: {"store.path": "/srv"}. With
    `trials` its `tests` are run, and one that fails is a mistake like any other.
    Raises ConfigError (a ConfigProblems) whose text lists every mistake.
    """
    if path is None:
        return _finish(Document("defaults", [], json.loads(json.dumps(DEFAULT)), {}, []), overrides)
    config = loads(read_text(Path(path)), str(path), overrides, trials=trials)
    config.keep_folder(Path(path).parent, exposed=_is_exposed(path))
    return config


def loads(
    text: str,
    name: str = "<text>",
    overrides: Mapping[str, Any] | None = None,
    *,
    trials: bool = False,
) -> Config:
    """Read a configuration from its text; `name` is what reports call it. Raises as `load` does."""
    return _finish(parse(text, name, expand), overrides, trials=trials)


def read_text(path: Path) -> str:
    """The text of a file of the configuration. Raises ConfigProblems."""
    try:
        with path.open("rb") as file:
            content = file.read(DOCUMENT_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigProblems([Problem(str(path), 0, 0, "", f"cannot be read: {why}")]) from None
    if len(content) > DOCUMENT_BYTES_MAX:
        raise ConfigProblems([Problem(str(path), 0, 0, "", f"is longer than {DOCUMENT_BYTES_MAX} bytes")])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise ConfigProblems([Problem(str(path), line, column, "", "is not UTF-8 text")]) from None


def _is_exposed(path: Path | str) -> bool:
    """Whether everyone on this machine can read the file."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:
        return False  # it was read a moment ago, and is gone: to nobody's harm


def _finish(document: Document, overrides: Mapping[str, Any] | None, *, trials: bool = False) -> Config:
    config: Config | None = None
    # What is not YAML at all has no values worth judging.
    if document.data is not None or not document.problems:
        if document.data is None:
            document.data = {}
        _override(document, overrides or {})
        report = Report(document)
        if isinstance(document.data, dict):
            config = report.validate(trials=trials)
        elif not document.problems:
            document.problem(1, 1, (), "must have keys and values, such as 'version: 1'")
    if document.problems or config is None:
        raise ConfigProblems(document.problems)
    config.keep_secret(frozenset(path for path, place in document.places.items() if place.secret is not None))
    return config


def _override(document: Document, overrides: Mapping[str, Any]) -> None:
    for dotted, value in overrides.items():
        *parents, last = path = tuple(dotted.split("."))
        inner = document.data
        for step in parents:
            if isinstance(inner, dict):
                if not isinstance(inner.get(step), dict):
                    inner[step] = {}
                inner = inner[step]
        if not isinstance(inner, dict):
            document.problems.append(Problem(OVERRIDE, 0, 0, dotted, "leads through something without keys"))
            continue
        inner[last] = value
        for known in [known for known in document.places if known[: len(path)] == path]:
            del document.places[known]
