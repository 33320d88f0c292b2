"""`edgespool passwd`: adds a user to a password file, gives one another password, removes one.

The file is written anew beside the old one and then takes its name, so a gateway that
reads it meanwhile sees the one or the other, and a kill or a full disk leaves the old
one. All other lines stay as they are, comments too. The password is asked for twice, or
read from stdin; never taken from the command line, which everyone on the machine can
read.

A gateway that runs reads the file again on SIGHUP.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bridge.config.problem import ConfigProblems, Problem
from bridge.config.users import content_lines, decode_users
from bridge.errors import ConfigError
from bridge.policy.password import SALT_BYTES, check_user, make_line, parse_line

__all__ = ["change_password"]

_READ_MAX: Final = 131_072  # twice what a password may have: no more is needed to refuse it
_TAKEN: Final = "\n"  # stands for a line that goes; no line of a text is that


class _Refused(Exception):
    """What was typed cannot be used; the file was not looked at."""


def change_password(path: Path, user: str, *, delete: bool, stdin: bool) -> int:
    """Do it, and return the exit code."""
    try:
        line = None if delete else _new_line(user, stdin)
        path = Path(os.path.realpath(path))  # a link to the file stays one
        with _alone(path.parent):
            lines, found = _others(path, user)
            if delete and not found:
                return _fail(f"there is no user {user!r} in {path}", 1)
            _replace(path, lines + ([line] if line is not None else []))
    except _Refused as wrong:
        return _fail(str(wrong), 2)
    except ConfigError as error:
        return _fail(str(error), ConfigError.EXIT_CODE)
    except OSError as error:
        return _fail(f"{path} cannot be changed: {error.strerror or error}", 1)
    return 0


def _fail(text: str, code: int) -> int:
    print(f"edgespool: {text}", file=sys.stderr)
    return code


def _new_line(user: str, stdin: bool) -> str:
    # Before anybody is asked for a password in vain.
    if wrong := check_user(user):
        raise _Refused(f"{user!r}: {wrong}")
    try:
        return make_line(user, _ask(user, stdin), secrets.token_bytes(SALT_BYTES))
    except ValueError as wrong:
        raise _Refused(str(wrong)) from None


def _ask(user: str, stdin: bool) -> bytes:
    if stdin:
        given = sys.stdin.buffer.read(_READ_MAX)
        return given.removesuffix(b"\n").removesuffix(b"\r")
    if not sys.stdin.isatty():
        raise _Refused("there is no terminal to ask on; write the password to stdin, and add --stdin")
    first = getpass.getpass(f"Password for {user}: ")
    if first != getpass.getpass("Once more: "):
        raise _Refused("the two are not the same; nothing was changed")
    return first.encode()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While it lasts no other `edgespool passwd` changes a file in this folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _others(path: Path, user: str) -> tuple[list[str], bool]:
    """Every line but those of the user, and whether there was one. A new file has none.

    Raises ConfigProblems when another line is no user: it may not be a password file at
    all. A line of this user may be as broken as it likes; that is how it gets mended.
    """
    if not path.exists():
        return [], False
    text = decode_users(path, private=False)  # a file that everyone can read is mended here too
    lines, found, problems = text.removesuffix("\n").split("\n"), False, []
    for number, line in content_lines(text):
        if line.partition(":")[0] == user:
            found = True
            lines[number - 1] = _TAKEN
            continue
        try:
            parse_line(line)
        except ValueError as wrong:
            problems.append(Problem(str(path), number, 1, "", str(wrong)))
    if problems:
        raise ConfigProblems(problems)
    return [line for line in lines if line is not _TAKEN] if text else [], found


def _replace(path: Path, lines: list[str]) -> None:
    """Afterwards the file has these lines, also after a power cut, and only its owner can read it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            if path.exists():
                _keep_owner(fd, path)
            else:
                _owner_of_folder(fd, path.parent)
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _keep_owner(fd: int, path: Path) -> None:
    """root that adds a user to the file of a service must not take it away from the service."""
    before = path.stat()
    mode = 0o600
    if not before.st_mode & stat.S_IRWXO:
        # A group that was let in on purpose stays so, such as root:edgespool 0640.
        mode |= before.st_mode & stat.S_IRGRP
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.fchown(fd, before.st_uid, before.st_gid)
        except PermissionError:
            mode = 0o600  # our own group is not the one that was meant
    os.fchmod(fd, mode)


def _owner_of_folder(fd: int, folder: Path) -> None:
    """A new file that root makes in the folder of a service is for the service to read."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(fd, owner.st_uid, owner.st_gid)
