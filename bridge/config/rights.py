"""The files that `access` names, read: users and rules as the broker takes them.

They are read at the start and again on SIGHUP. Whatever is wrong with one of them, also
that it cannot be read for want of descriptors, is an error of the whole: then nothing
starts, and a reload changes nothing. None of them is ever taken for an empty one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bridge.config.access import compile_rules
from bridge.config.explain import Report
from bridge.config.load import read_text
from bridge.config.model import Config
from bridge.config.parse import Document, parse
from bridge.config.problem import ConfigProblems, Problem
from bridge.config.secrets import expand
from bridge.config.users import read_users
from bridge.policy.access import Rule
from bridge.policy.password import Password

__all__ = ["load_access", "load_rules"]

_HOME = ("access", "rules")  # where the rules would stand in the configuration itself


def load_access(config: Config) -> tuple[dict[str, Password] | None, list[Rule] | None]:
    """Return users and rules; None for what the configuration does not name.

    Raises ConfigError with every mistake of both files.
    """
    access = config.access
    users = rules = None
    problems: list[Problem] = []
    if access.users is not None:
        try:
            users = read_users(config.locate(access.users))
        except ConfigProblems as error:
            problems += error.problems
    if isinstance(access.rules, Path):
        try:
            rules = load_rules(config.locate(access.rules))
        except ConfigProblems as error:
            problems += error.problems
    elif access.rules is not None:
        rules = compile_rules(access.rules)
    if problems:
        raise ConfigProblems(problems)
    return users, rules


def load_rules(path: Path) -> list[Rule]:
    """Read a YAML file that holds a list of rules. Raises ConfigProblems with every mistake in it."""
    text = read_text(path)
    document = parse(text, str(path), expand)
    if _open_to_all(path):
        document.problem(0, 0, (), f"can be changed by everyone on this machine; write: chmod 644 {path}")
    if not document.problems:
        if document.data is None:
            document.problem(0, 0, (), "has no rules in it; write [] if everything shall be forbidden")
        elif not isinstance(document.data, list):
            document.problem(1, 1, (), "must be a list of rules, such as '- {user: anna, publish: [a/#]}'")
    if document.problems:
        raise ConfigProblems(document.problems)
    return _compiled(document)


def _compiled(document: Document) -> list[Rule]:
    """Judge the rules as if they stood in the configuration itself, and by the same words."""
    document.data = {"version": 1, "access": {"rules": document.data}}
    document.places = {(*_HOME, *path): place for path, place in document.places.items()}
    config = Report(document).validate()
    if document.problems or config is None:
        raise ConfigProblems(_at_home(document.problems))
    assert isinstance(config.access.rules, list)
    return compile_rules(config.access.rules)


def _at_home(problems: Sequence[Problem]) -> list[Problem]:
    return [
        msgspec.structs.replace(problem, path=problem.path.removeprefix(".".join(_HOME)))
        for problem in problems
    ]


def _open_to_all(path: Path) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IWOTH)
