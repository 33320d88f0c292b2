"""YAML text → plain values, and the place of every one of them.

    text → events (PyYAML) → dicts, lists, scalars + {path: place} + problems

The events of the parser are used directly. `compose()` would build the same nodes,
but by recursion, with aliases already followed, and would stop at the first thing
it does not like; reading events lets us refuse and go on, and count while reading.

Scalars mean what YAML 1.2 says: `on` and `yes` are words, `0123` is the number 123,
`12:30:45` is text. What a configuration does not need is refused: tags, anchors and
aliases, several documents, keys that are not text or stand twice, numbers that are
not finite, and nothing where a value should be.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import yaml

from bridge.config.problem import Path, Problem, spell_path
from bridge.config.secrets import mask_line

__all__ = ["DOCUMENT_BYTES_MAX", "Document", "Place", "parse", "resolve"]

DOCUMENT_BYTES_MAX: Final = 1_048_576
DEPTH_MAX: Final = 32  # ours goes six deep; the parser's time grows with the square of the depth
VALUES_MAX: Final = 10_000  # seven hundred routes with everything spelled out
_PROBLEMS_MAX: Final = 1000  # no use in finding more

# The C parser is thirty times faster, and not there in every build of PyYAML.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_NOT_PRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}\Z")
_OCTAL: Final = re.compile(r"0o[0-7]{1,18}\Z")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,15}\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,4})?\Z")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


Mark = tuple[int, int]  # line and column, from 1


class Place(msgspec.Struct):
    """Where one value stands; lines and columns count from 1."""

    line: int
    column: int
    key_line: int  # where its key stands; for elements of a list and the document, the value itself
    key_column: int
    raw: str | None = None  # a scalar as it was written, without its quotes
    secret: str | None = None  # what it became, when something was filled in
    broken: bool = False  # a problem was reported already: more about it would only repeat that


class Document(msgspec.Struct):
    """What a text said; `data` is incomplete while there are problems, and None if nothing could be read."""

    name: str
    lines: list[str]
    data: Any
    places: dict[Path, Place]
    problems: list[Problem]
    _shown: dict[int, str] = {}  # lines as reports may show them

    def problem(self, line: int, column: int, path: Path, text: str) -> None:
        """Add a problem at a line and column."""
        if line not in self._shown:
            # Once for each line: a megabyte in one line may hold thousands of mistakes.
            self._shown[line] = mask_line(self.lines[line - 1]) if 0 < line <= len(self.lines) else ""
        self.problems.append(Problem(self.name, line, column, spell_path(path), text, self._shown[line]))


class _Frame:
    """A mapping or list that is still open."""

    __slots__ = ("container", "key", "key_mark", "path", "seen", "want_key")

    def __init__(self, container: dict[str, Any] | list[Any], path: Path | None) -> None:
        self.container = container
        self.path = path  # None: something is wrong with its key, so nothing in it counts
        self.want_key = isinstance(container, dict)
        self.key: str | None = None
        self.key_mark: Mark | None = None
        self.seen: dict[str, int] = {}  # key → its line


def resolve(text: str) -> Any:
    """Return what a plain scalar means in YAML 1.2's core schema; ValueError for an infinite number."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text, 10)
    if _OCTAL.match(text):
        return int(text[2:], 8)
    if _HEX.match(text):
        return int(text, 16)
    if _NOT_FINITE.match(text):
        raise ValueError("a number must be finite")
    if _FLOAT.match(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("a number must be finite")
        return number
    return text


def parse(text: str, name: str, expand: Callable[[str], str] | None = None) -> Document:
    """Read one YAML document. Mistakes become problems of the document; raises nothing for any text.

    `expand` fills in references in values; it raises ValueError for those it cannot.
    """
    document = Document(name, [], None, {}, [])
    if len(text) > DOCUMENT_BYTES_MAX:
        document.problem(0, 0, (), f"is longer than {DOCUMENT_BYTES_MAX} bytes")
        return document
    text = text.removeprefix("\ufeff")
    document.lines = _LINE_BREAK.split(text)
    if found := _NOT_PRINTABLE.search(text):
        before = _LINE_BREAK.split(text[: found.start()])
        document.problem(
            len(before),
            len(before[-1]) + 1,
            (),
            f"the character U+{ord(found[0]):04X} must not stand in YAML",
        )
        return document
    reader = _Reader(document, expand)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if not reader.take(event):
                break
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.problem(line, column, (), f"not YAML: {what[:200]}")
        document.data = None
    except yaml.YAMLError as error:
        document.problem(1, 1, (), f"not YAML: {str(error).splitlines()[0][:200]}")
        document.data = None
    return document


class _Reader:
    """Builds the values of a document from events. Its own stack: no text can make it recurse."""

    def __init__(self, document: Document, expand: Callable[[str], str] | None) -> None:
        self.document = document
        self.expand = expand
        self.stack: list[_Frame] = []
        self.values = 0
        self.documents = 0

    def take(self, event: yaml.Event) -> bool:
        """Take one event in; False when reading on is of no use."""
        mark = _mark(event)
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._problem(mark, (), "a second document; write one file for each")
                return False
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self.stack.pop()
        elif isinstance(event, yaml.NodeEvent):
            self.values += 1
            if self.values > VALUES_MAX:
                return self._give_up(mark, f"more than {VALUES_MAX} values")
            if len(self.stack) >= DEPTH_MAX:
                return self._give_up(mark, f"nested deeper than {DEPTH_MAX} levels")
            if len(self.document.problems) > _PROBLEMS_MAX:
                return self._give_up(mark, "too many mistakes")
            self._take_node(event, mark)
        return True

    def _give_up(self, mark: Mark, text: str) -> bool:
        self._problem(mark, (), text)
        self.document.data = None
        return False

    def _take_node(self, event: yaml.NodeEvent, mark: Mark) -> None:
        for wrong in _refusals(event):
            self._problem(mark, self._path() or (), wrong)
        top = self.stack[-1] if self.stack else None
        if top is not None and top.want_key:
            self._take_key(top, event, mark)
            return
        path = self._path()
        place = self._place(top, mark)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path, place)
        elif isinstance(event, yaml.MappingStartEvent):
            value = {}
        elif isinstance(event, yaml.SequenceStartEvent):
            value = []
        else:  # an alias, refused above
            value = None
        if event.anchor is not None or getattr(event, "tag", None) not in (None, "!"):
            place.broken = True
        self._attach(top, value, path, place)
        if isinstance(value, dict | list):
            self.stack.append(_Frame(value, path))

    def _take_key(self, top: _Frame, event: yaml.NodeEvent, mark: Mark) -> None:
        top.want_key = False
        top.key = None
        top.key_mark = mark
        if isinstance(event, yaml.ScalarEvent):
            if (wrong := self._check_key(top, event, mark)) and top.path is not None:
                self._problem(mark, top.path, wrong)
            elif not wrong:
                top.key = event.value
        elif isinstance(event, yaml.CollectionStartEvent):
            if top.path is not None:
                # `{{name}}` is how a template engine's placeholder looks to YAML.
                self._problem(mark, top.path, "a key must be text, not a list or mapping")
            self.stack.append(_Frame({} if isinstance(event, yaml.MappingStartEvent) else [], None))

    def _check_key(self, top: _Frame, event: yaml.ScalarEvent, mark: Mark) -> str | None:
        key = event.value
        if event.implicit[0]:
            try:
                plain = resolve(key)
            except ValueError:
                plain = None
            if not isinstance(plain, str):
                return f"a key must be text; write it in quotes: '{key[:64]}'"
        if key in top.seen:
            return f"the key {key[:64]!r} stands twice, first in line {top.seen[key]}"
        top.seen[key] = mark[0]
        return None

    def _path(self) -> Path | None:
        """The path of the value that comes next; None where it does not count."""
        if not self.stack:
            return ()
        top = self.stack[-1]
        if top.path is None:
            return None
        if isinstance(top.container, list):
            return (*top.path, len(top.container))
        if top.want_key:
            return top.path
        return None if top.key is None else (*top.path, top.key)

    def _place(self, top: _Frame | None, mark: Mark) -> Place:
        key = mark if top is None or top.key_mark is None else top.key_mark
        return Place(*mark, *key)

    def _attach(self, top: _Frame | None, value: Any, path: Path | None, place: Place) -> None:
        if path is not None:
            self.document.places[path] = place
        if top is None:
            self.document.data = value
        elif isinstance(top.container, list):
            top.container.append(value)
        else:
            top.want_key = True
            if path is not None and top.key is not None:
                top.container[top.key] = value

    def _scalar(self, event: yaml.ScalarEvent, path: Path | None, place: Place) -> Any:
        text: str = event.value
        place.raw = text
        try:
            if self.expand is not None and "${" in text:
                filled = self.expand(text)
                place.secret = filled
                return filled
            value = resolve(text) if event.implicit[0] else text
            if value is None and path:
                raise ValueError("has no value; write one, or remove the key")
        except ValueError as wrong:
            place.broken = True
            if path is not None:
                self._problem((place.line, place.column), path, str(wrong))
            return text
        return value

    def _problem(self, mark: Mark, path: Path, text: str) -> None:
        self.document.problem(*mark, path, text)


def _mark(event: yaml.Event) -> Mark:
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _refusals(event: yaml.NodeEvent) -> Iterator[str]:
    """What a node has that no configuration needs. Refused whole: an alias cannot grow, a tag cannot run."""
    if isinstance(event, yaml.AliasEvent):
        yield f"aliases are not supported; write out the value of *{str(event.anchor)[:64]}"
        return
    if event.anchor is not None:
        yield f"anchors are not supported; remove &{event.anchor[:64]}"
    tag = getattr(event, "tag", None)
    if tag is not None and tag != "!":
        yield f"tags are not supported; remove {tag[:64]!r}"
