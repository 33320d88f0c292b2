"""A mosquitto.conf as settings, each with the file and the line it stood in.

    name value to the end of the line        # is a comment only as the first character

Read as Mosquitto reads it: relative paths start at its working directory and not at
the file; `include_dir` takes the files that end in `.conf`, in an order without
regard to case, and only in the main file. Read a little more kindly, too: tabs are
blanks. Mistakes are ConfigErrors that begin with `file:line`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bridge.errors import ConfigError

__all__ = ["Setting", "read_lines", "read_settings"]

_FILE_BYTES_MAX: Final = 8 * 1024 * 1024
_INT_MAX: Final = 2**31 - 1


class Setting(msgspec.Struct, frozen=True):
    """One line: what is set, and to what."""

    name: str
    value: str
    file: str
    line: int

    @property
    def where(self) -> str:
        """`mosquitto.conf:12`."""
        return f"{self.file}:{self.line}"

    def wrong(self, text: str) -> ConfigError:
        """The error that says where this stands."""
        return ConfigError(f"{self.where} {self.name}: {text}")

    def text(self) -> str:
        """The value, which must be there."""
        if not self.value:
            raise self.wrong("has no value; write one, or remove the line")
        return self.value

    def words(self) -> list[str]:
        """The value at its blanks, at least one word."""
        return self.text().split()

    def word(self, *known: str) -> str:
        """The first word of the value, one of these."""
        word = self.words()[0]
        if word not in known:
            raise self.wrong(f"{word[:64]!r} must be one of {', '.join(known)}")
        return word

    def flag(self) -> bool:
        """`true` or `false`."""
        return self.word("true", "1", "false", "0") in ("true", "1")

    def number(self, low: int = -_INT_MAX - 1, high: int = _INT_MAX) -> int:
        """A whole number; `0x10` is one, and `010` is eight, as C reads them."""
        word = self.words()[0]
        digits = word.lstrip("+-")
        base = 16 if digits[:2].lower() == "0x" else 8 if digits[:1] == "0" and digits != "0" else 10
        try:
            number = int(word, base) if len(word) < 32 else None
        except ValueError:
            number = None
        if number is None or not word.isascii() or "_" in word:
            raise self.wrong(f"{word[:64]!r} is not a number")
        if not low <= number <= high:
            raise self.wrong(f"{number} must be between {low} and {high}")
        return number


def read_settings(path: Path, directory: Path) -> list[Setting]:
    """Read a file and those it includes; `directory` is where relative paths start."""
    found: list[Setting] = []
    for setting in _read_file(path, str(path)):
        if setting.name != "include_dir":
            found.append(setting)
            continue
        folder = directory / setting.text()
        for inner in _included(setting, folder):
            for each in _read_file(inner, str(inner)):
                if each.name == "include_dir":
                    raise each.wrong("stands in an included file; only the main one may include others")
                found.append(each)
    return found


def _included(setting: Setting, folder: Path) -> list[Path]:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise setting.wrong(f"{folder} cannot be read: {error.strerror}") from None
    chosen = [name for name in names if name.endswith(".conf") and len(name) > len(".conf")]
    return [folder / name for name in sorted(chosen, key=lambda name: (name.upper(), name))]


def _read_file(path: Path, shown: str) -> list[Setting]:
    found = []
    for number, line in read_lines(path):
        name, _, value = line.partition(" ")
        found.append(Setting(name, value.strip(), shown, number))
    return found


def read_lines(path: Path, owner: Setting | None = None) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers. Raises ConfigError, at `owner` if there is one."""

    def wrong(text: str) -> ConfigError:
        return ConfigError(f"{path}: {text}") if owner is None else owner.wrong(f"{path} {text}")

    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise wrong(f"cannot be read: {why}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise wrong(f"is longer than {_FILE_BYTES_MAX} bytes")
    found = []
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            line = raw.decode("utf-8").replace("\t", " ").strip()
        except UnicodeDecodeError:
            raise ConfigError(f"{path}:{number}: is not UTF-8 text") from None
        if not line.isprintable():
            raise ConfigError(f"{path}:{number}: has a control character")
        if line and not line.startswith("#"):
            found.append((number, line))
    return found
