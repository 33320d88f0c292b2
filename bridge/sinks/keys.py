"""Key files for CURVE: made, read, and refused when others can read what is secret.

    hall.key        the secret key                    only its owner may read it
    hall.key.pub    the public key, and whose it is   for the other end

A key is 40 characters of Z85, the first word of its line; what follows is a name for
people. A line that begins with # is a comment: # is one of the 85, but no 32 bits begin
with it. Who is let in stands in one such file, a key a line, or in a folder of *.pub.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import zmq

from bridge.errors import ConfigError
from bridge.private import read_private

__all__ = ["Clients", "KeyPair", "make_key_files", "read_key_pair", "read_public_key"]

log = logging.getLogger(__name__)

_KEY_CHARS: Final = 40
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_FILE_BYTES_MAX: Final = 1 << 20  # a thousand receivers take a twentieth of it
_FILES_MAX: Final = 10_000
_READ_AGAIN_S: Final = 1.0


class KeyPair(msgspec.Struct, frozen=True):
    """One end of a connection: what it may show, and what it may not."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def make_key_files(path: Path) -> str:
    """Make a pair; afterwards `path` holds the secret key and `path`.pub the public one, which is returned.

    Raises ConfigError when one of the files is there: a key in use must not be written over.
    """
    public, secret = zmq.curve_keypair()
    public_path = path.with_name(path.name + ".pub")
    try:
        if public_path.exists():
            raise FileExistsError(17, "it exists; a key in use is not written over", str(public_path))
        _write_new(path, secret + b"\n", 0o600)
        _write_new(public_path, public + f" {path.stem}\n".encode(), 0o644)
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename} is there already; choose another name, or move it away"
        ) from None
    except OSError as error:
        raise ConfigError(f"{error.filename or path} cannot be written: {error.strerror}") from None
    return public.decode("ascii")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    # The mode goes with the creation: there is no moment in which others could open it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_key_pair(path: Path) -> KeyPair:
    """Read a secret key; the public one follows from it.

    Raises ConfigError when others may read the file, or when it holds no key. No text
    of an error holds anything of the file.
    """
    try:
        words = read_private(path, _FILE_BYTES_MAX).decode("ascii", "replace").split()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if not words or not _is_key(words[0]):
        raise ConfigError(
            f"{path} does not begin with a key of {_KEY_CHARS} characters; edgespool keygen makes one"
        )
    secret = words[0].encode("ascii")
    return KeyPair(zmq.curve_public(secret), secret)


def read_public_key(path: Path) -> bytes:
    """Read the only public key in a file. Raises ConfigError."""
    keys = _public_keys(path)
    if len(keys) != 1:
        raise ConfigError(
            f"{path} must hold one public key, such as the .pub file of that end; it holds {len(keys)}"
        )
    return next(iter(keys)).encode("ascii")


class Clients:
    """Whose keys are let in. What changes in the file counts within a second, at the next greeting.

    A file that can no longer be used lets nobody in; it says so in the log, once.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError for a file that cannot be used from the start."""
        self.path = path
        self._now = now
        self._names = _clients(path)
        self._read_at = now()
        self._is_broken = False

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, key: str) -> str | None:
        """Return whose key it is ("" where the file gives no name), or None for a stranger's."""
        if self._now() - self._read_at >= _READ_AGAIN_S:
            self._read_again()
        return self._names.get(key)

    def _read_again(self) -> None:
        self._read_at = self._now()
        try:
            self._names = _clients(self.path)
            self._is_broken = False
        except ConfigError as error:
            self._names = {}
            if not self._is_broken:
                log.error("keys unusable, nobody new is let in error=%s", error)
            self._is_broken = True


def _clients(path: Path) -> dict[str, str]:
    if not path.is_dir():
        return _public_keys(path)
    names: dict[str, str] = {}
    try:
        files = sorted(path.glob("*.pub"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(files) > _FILES_MAX:
        raise ConfigError(f"{path} has more than {_FILES_MAX} files; put the keys into one file, one a line")
    for file in files:
        names.update(_public_keys(file))
    return names


def _public_keys(path: Path) -> dict[str, str]:
    """Key → name. Raises ConfigError with the line that is neither."""
    content, mode = _read(path)
    if mode & 0o002:
        raise ConfigError(f"{path} says who is trusted and everyone may write it: chmod 644 {path}")
    keys: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not _is_key(words[0]):
            raise ConfigError(f"{path}:{number}: must begin with a key of {_KEY_CHARS} characters, or with #")
        keys[words[0]] = " ".join(words[1:])
    return keys


def _read(path: Path) -> tuple[str, int]:
    """The text of a small file and its mode bits, of the same file even if it is replaced meanwhile."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigError(f"{path} is longer than {_FILE_BYTES_MAX} bytes: that is no file of keys")
    try:
        return content.decode("utf-8"), mode
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text") from None


def _is_key(word: str) -> bool:
    """Whether it is Z85 of 32 bytes. Five digits hold more than four bytes do; such a group is none."""
    if len(word) != _KEY_CHARS or not all(char in _DIGITS for char in word):
        return False
    for at in range(0, _KEY_CHARS, 5):
        value = 0
        for char in word[at : at + 5]:
            value = value * 85 + _DIGITS.index(char)
        if value >= 1 << 32:
            return False
    return True
