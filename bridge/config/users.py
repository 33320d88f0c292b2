"""The password file: `USER:HASH` a line, as `edgespool passwd` and `mosquitto_passwd` write it.

Empty lines and lines that begin with # say nothing. Every other line is a user, or a
mistake of the whole file: what is skipped in one program is a user in the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bridge.config.problem import ConfigProblems, Problem
from bridge.policy.password import Password, parse_line
from bridge.private import read_private

__all__ = ["content_lines", "decode_users", "read_users", "users_warnings"]

USERS_BYTES_MAX: Final = 16 * 1024 * 1024  # a hundred thousand users
_NAMED_MAX: Final = 5


def read_users(path: Path) -> dict[str, Password]:
    """Return the users of a file; none at all is an answer too. Raises ConfigProblems with all mistakes."""
    return parse_users(path, decode_users(path))


def decode_users(path: Path, *, private: bool = True) -> str:
    """The text of a password file, whoever else can read it unless `private`. Raises ConfigProblems."""
    try:
        content = read_private(path, USERS_BYTES_MAX) if private else path.read_bytes()
    except ValueError as wrong:
        raise ConfigProblems([Problem(str(path), 0, 0, "", str(wrong).removeprefix(f"{path} "))]) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigProblems([Problem(str(path), line, 1, "", "is not UTF-8 text")]) from None


def content_lines(text: str) -> Iterator[tuple[int, str]]:
    """Every line that says something, with its number."""
    for number, line in enumerate(text.split("\n"), 1):
        # A name may end in no kind of space, and neither does a hash: what is cut off is the file's.
        line = line.rstrip(" \t\r")
        if line and not line.startswith("#"):
            yield number, line


def parse_users(path: Path, text: str) -> dict[str, Password]:
    """The same, of a text; `path` is what the mistakes call it."""
    users: dict[str, Password] = {}
    lines: dict[str, int] = {}
    problems = []
    for number, line in content_lines(text):
        try:
            password = parse_line(line)
        except ValueError as wrong:
            # Without the line itself: it may hold a password.
            problems.append(Problem(str(path), number, 1, "", str(wrong)))
            continue
        if password.user in users:
            text = (
                f"the user {password.user!r} stands twice, first in line {lines[password.user]}; remove one"
            )
            problems.append(Problem(str(path), number, 1, "", text))
        users[password.user] = password
        lines.setdefault(password.user, number)
    if problems:
        raise ConfigProblems(problems)
    return users


def users_warnings(users: Mapping[str, Password] | None) -> list[str]:
    """What is allowed and probably not meant, one sentence each."""
    if users is None:
        return []
    if not users:
        return [
            "access.users: the password file is empty, so nobody can log in; edgespool passwd adds a user"
        ]
    weak = [user for user, password in users.items() if password.weak]
    if not weak:
        return []
    named = ", ".join(weak[:_NAMED_MAX]) + (" and others" if len(weak) > _NAMED_MAX else "")
    return [f"access.users: the hashes of {named} are quick to guess; make them anew with edgespool passwd"]
