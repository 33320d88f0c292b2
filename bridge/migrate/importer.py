"""`mosquitto.conf` → the text of a configuration, and the notes about what it leaves out.

The text has been read back before anybody sees it, so what is printed is valid. It
opens no file that it names but the ACL file: those may lie on another machine, with
other rights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bridge.config.load import loads
from bridge.errors import ConfigError
from bridge.migrate.bridges import skeleton
from bridge.migrate.conf import read_settings
from bridge.migrate.equivalent import equivalent, opens
from bridge.migrate.mosquitto import collect
from bridge.migrate.notes import Note, Notes
from bridge.migrate.text import as_comment, as_yaml

__all__ = ["Imported", "import_mosquitto"]


class Imported(msgspec.Struct, frozen=True):
    """The YAML, and what it does not say."""

    text: str
    notes: list[Note]


def import_mosquitto(
    path: Path,
    directory: Path | None = None,
    *,
    port: int | None = None,
    version: str | None = None,
) -> Imported:
    """Read a mosquitto.conf and write ours.

    `directory` is Mosquitto's working directory, where relative paths start; ours by
    default. `port` stands for `mosquitto -p`: it counts where the file names no
    listener. `version` decides about defaults; by default the settings tell.

    Raises ConfigError that begins with the file and the line.
    """
    directory = (Path.cwd() if directory is None else directory).absolute()
    conf = collect(read_settings(path, directory))
    if version is not None:
        conf.version = version
    if port is not None and conf.local_only:
        conf.listeners[0].port = port
    notes = Notes()
    document = equivalent(conf, directory, notes)
    sketch = skeleton(conf.bridges, notes)
    if conf.local_only:
        notes.say(
            "", "", "the file names no listener, so only 127.0.0.1 listens; for ::1 add a listener '[::1]:…'"
        )
    if opens(document["listeners"]):
        notes.say("", "", "whoever reaches a listener with 'anonymous: true' may come in without a name")
    found = notes.in_order()
    text = _write(path, document, sketch, found, conf.version)
    _check(text, path)
    return Imported(text, found)


def _write(
    path: Path, document: dict[str, Any], sketch: dict[str, Any], notes: list[Note], version: str
) -> str:
    lines = as_comment(
        [
            f"From {path}, with the defaults of Mosquitto {version}. What is not the same here:",
            *(f"  {note}" for note in notes),
        ]
    )
    lines += as_yaml(document)
    if sketch:
        lines += ["", *as_comment(["What the bridges sent out. Name the sink, and take the signs away:"])]
        lines += as_comment(as_yaml(sketch))
    return "\n".join(lines) + "\n"


def _check(text: str, path: Path) -> None:
    try:
        loads(text, "result")
    except ConfigError as error:
        raise ConfigError(f"{path}: cannot be said in our words:\n{error}") from None
