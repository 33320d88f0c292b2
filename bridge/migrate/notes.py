"""What could not be taken over: where it stood, and what happens instead.

One line for each setting, in the order of the files, and then what no single line
says. The same lines stand in the YAML and on stderr.
"""

from __future__ import annotations

import msgspec

from bridge.migrate.conf import Setting

__all__ = ["Note", "Notes"]


class Note(msgspec.Struct, frozen=True):
    """`mosquitto.conf:12`, `log_type all`, and a sentence."""

    where: str
    setting: str
    text: str

    def __str__(self) -> str:
        said = f"{self.setting}: {self.text}" if self.setting else self.text
        return f"{self.where} {said}" if self.where else said


class Notes:
    """The notes so far."""

    def __init__(self) -> None:
        self.found: list[Note] = []

    def add(self, setting: Setting, text: str) -> None:
        """One setting, and what happens instead."""
        self.found.append(Note(setting.where, f"{setting.name} {setting.value}".strip(), text))

    def in_order(self) -> list[Note]:
        """All of them, as somebody reads who has the files at hand."""

        def place(note: Note) -> tuple[bool, str, int]:
            file, _, line = note.where.rpartition(":")
            return not note.where, file, int(line) if line.isdecimal() else 0

        return sorted(self.found, key=place)

    def say(self, where: str, about: str, text: str) -> None:
        """The same for what is no single line."""
        self.found.append(Note(where, about, text))
