"""What the model found wrong → where in the file that stands, and what to write instead.

pydantic says *what* by a path and a kind of error; the document says *where* by a
place for every path; the schema says what would have been right. Nothing that was
filled in from outside may show in what comes out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from bridge.config.commands import check_commands
from bridge.config.model import Config
from bridge.config.parse import Document, Place, resolve
from bridge.config.problem import ConfigProblems, Path, Problem, spell_path
from bridge.config.routes import build_routes, check_routes
from bridge.config.secrets import MASK, mask_line, mask_url
from bridge.config.trials import run_trials
from bridge.policy.spelling import did_you_mean
from bridge.policy.units import format_duration, format_size, parse_duration, parse_size

__all__ = ["OVERRIDE", "Report"]

OVERRIDE: Final = "override"  # stands where a report has the file's name
_ERRORS_MAX: Final = 1000  # no use in explaining more
_TYPES: Final = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must have keys and values",
    "model_type": "must have keys and values",
    "model_attributes_type": "must have keys and values",
    "path_type": "must be text",
}


class Report:
    """Turns what the model and the checks find into problems of the document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.schema: dict[str, Any] | None = None
        self.secrets = [(path, place) for path, place in document.places.items() if place.secret]

    def validate(self, *, trials: bool = False) -> Config | None:
        """Return the configuration, or None after adding a problem for everything that is wrong.

        With `trials` its `tests` are run too, where all the rest is right.
        """
        data = self.document.data
        config, errors = _validate(data)
        if errors and self._resolve_filled_in(errors):
            config, errors = _validate(data)
        seen: set[tuple[Path, str]] = set()
        for error in errors[:_ERRORS_MAX]:
            path, text, at_key = self._explain(error)
            if (path, text) not in seen:
                seen.add((path, text))
                self._add(path, text, at_key=at_key)
        for path, text, column in (*check_routes(data), *check_commands(data)):
            self._add(path, text, offset=column)
        if trials and config is not None and not self.document.problems:
            for path, text in run_trials(config.tests, build_routes(config)):
                self._add(self._plain(path), text)
        return config

    def _resolve_filled_in(self, errors: list[ErrorDetails]) -> bool:
        """Give values that were filled in the type that is wanted there; whether any was changed.

        What comes from outside is text, and `${env:PORT}` should do for a number all
        the same. Where text is wanted it stays text, even if a password is all digits.
        """
        changed = False
        for error in errors:
            path = self._plain(tuple(error["loc"]))
            place = self.document.places.get(path)
            if place is None or place.secret is None or error["type"] not in _TYPES:
                continue
            try:
                value = resolve(place.secret)
            except ValueError:
                continue
            inner = self.document.data
            for step in path[:-1]:
                inner = inner[step]
            if type(value) is not str and value is not None:
                inner[path[-1]] = value
                changed = True
        return changed

    def _explain(self, error: ErrorDetails) -> tuple[Path, str, bool]:
        """Return (path, text, whether the key is meant and not the value) for an error of the model."""
        kind, loc = error["type"], self._plain(tuple(error["loc"]))
        context = error.get("ctx", {})
        if loc and loc[-1] == "[key]":
            return loc[:-1], str(context.get("error", error["msg"])), True
        if kind == "extra_forbidden":
            allowed = self._allowed(loc[:-1])
            known = f"; allowed are {', '.join(allowed)}" if allowed else ""
            text = f"unknown key {str(loc[-1])[:64]!r}{known}{did_you_mean(str(loc[-1]), allowed)}"
            return loc, text, True
        if kind == "missing":
            what = "version: 1" if loc == ("version",) else f"{loc[-1]}:"
            return loc[:-1], f"{str(loc[-1])!r} is missing; write '{what}'", True
        path = self._known(loc)
        place = self.document.places.get(path)
        if kind in _TYPES:
            return path, _TYPES[kind] + _hint(kind, place), False
        if kind in ("value_error", "assertion_error"):
            return path, str(context.get("error", error["msg"])), False
        if kind in ("literal_error", "enum"):
            wanted = str(context.get("expected", ""))
            raw = place.raw if place is not None and place.secret is None else None
            words = [word.strip("' ") for word in wanted.replace(" or ", ", ").split(",")]
            return path, f"must be {wanted}{did_you_mean(raw, words) if raw else ''}", False
        if kind == "string_too_short":
            return path, "must not be empty", False
        if kind in ("greater_than_equal", "less_than_equal"):
            least = kind == "greater_than_equal"
            bound = _with_unit(context["ge" if least else "le"], place)
            return path, f"must be at {'least' if least else 'most'} {bound}", False
        return path, str(error["msg"]).replace("Input should ", "must ", 1), False

    def _plain(self, loc: Path) -> Path:
        """Without the steps that a union adds to say which of its types is meant: they stand in no file."""
        path: list[str | int] = []
        inner = self.document.data
        for step in loc:
            if isinstance(step, str) and step != "[key]" and isinstance(inner, list | str | int | float):
                continue
            if isinstance(step, int) and isinstance(inner, dict):
                continue  # one thing that was written without a list
            path.append(step)
            try:
                inner = inner[step]
            except (IndexError, KeyError, TypeError):
                inner = None
        return tuple(path)

    def _known(self, loc: Path) -> Path:
        """The longest beginning of `loc` that stands in the document."""
        path = loc
        while path and path not in self.document.places:
            path = path[:-1]
        return path or loc

    def _allowed(self, path: Path) -> list[str]:
        """The keys that the schema knows at a path."""
        if self.schema is None:
            self.schema = Config.model_json_schema(by_alias=True)
        definitions = self.schema["$defs"]
        nodes: list[Any] = [self.schema]
        for step in path:
            below: list[Any] = []
            for node in _alternatives(nodes, definitions):
                if isinstance(step, int):
                    below.append(node.get("items", {}))
                else:
                    below.append(
                        node.get("properties", {}).get(step) or node.get("additionalProperties") or {}
                    )
            nodes = below
        return [key for node in _alternatives(nodes, definitions) for key in node.get("properties", {})]

    def _add(self, path: Path, text: str, *, at_key: bool = False, offset: int = 0) -> None:
        document = self.document
        known = self._known(path)
        place = document.places.get(known)
        shown = path[:-1] if text.startswith("unknown key") else path
        text = self._without_secrets(known, text)
        if place is None:
            # Nothing of it stands in the file: it came with an override, or is the document itself.
            name = OVERRIDE if path and known == path else document.name
            document.problems.append(Problem(name, 0, 0, spell_path(shown), text))
        elif not place.broken:
            if at_key:
                document.problem(place.key_line, place.key_column, shown, text)
            else:
                document.problem(place.line, place.column + self._inside(place, offset), shown, text)

    def _inside(self, place: Place, offset: int) -> int:
        """How many columns after its begin the value's character number `offset` stands, or 0."""
        if not offset or place.raw is None or place.secret is not None:
            return 0
        line = self.document.lines[place.line - 1]
        for quote in (0, 1):
            begin = place.column - 1 + quote
            if line[begin : begin + len(place.raw)] == place.raw:
                return quote + offset
        return 0  # escapes or several lines: the begin is near enough

    def _without_secrets(self, path: Path, text: str) -> str:
        """The text with everything that was filled in as ***, or no detail at all if some might remain."""
        secrets = [
            (place.secret or "", place.raw or "")
            for known, place in self.secrets
            if known[: len(path)] == path
        ]
        if not secrets or text in _TYPES.values():
            return mask_url(text)
        for secret, _ in secrets:
            text = text.replace(secret, MASK).replace(repr(secret)[1:-1], MASK)
        for secret, raw in secrets:
            if any(secret[at : at + 4] in text for at in range(max(1, len(secret) - 3))):
                return f"{MASK} from {mask_line(raw)} cannot be used here"
        return mask_url(text)


def _validate(data: Any) -> tuple[Config | None, list[ErrorDetails]]:
    # By way of JSON: strict there still means that a list may become a tuple and text a path.
    try:
        text = json.dumps(data)
    except (TypeError, ValueError) as error:  # only an override can bring such a value
        raise ConfigProblems([Problem(OVERRIDE, 0, 0, "", str(error))]) from None
    try:
        return Config.model_validate_json(text, strict=True), []
    except ValidationError as error:
        return None, error.errors(include_url=False, include_input=False)


def _alternatives(nodes: list[Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """Nodes of the schema with references and unions resolved."""
    found: list[dict[str, Any]] = []
    waiting = list(nodes)
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, dict):
            continue  # `true`: anything goes there
        if "$ref" in node:
            waiting.append(definitions[node["$ref"].rsplit("/", 1)[-1]])
        elif "anyOf" in node or "oneOf" in node:
            waiting += [*node.get("anyOf", []), *node.get("oneOf", [])]
        else:
            found.append(node)
    return found


def _hint(kind: str, place: Place | None) -> str:
    """What to write instead of a value of the wrong type, as far as it can be guessed."""
    if place is None or place.raw is None or place.secret is not None:
        return ""
    raw = mask_url(place.raw[:64])
    if kind == "string_type":
        return f"; write it in quotes: '{raw}'"
    if kind == "bool_type" and raw.lower() in ("yes", "on", "y"):
        return f"; {raw!r} is only a word, write true"
    if kind == "bool_type" and raw.lower() in ("no", "off", "n"):
        return f"; {raw!r} is only a word, write false"
    return f", not {raw!r}"


def _with_unit(bound: float, place: Place | None) -> str:
    """The bound in the units that the value was written in."""
    spellings: list[tuple[Callable[[object], float], Callable[[Any], str]]] = [
        (parse_duration, format_duration),
        (parse_size, format_size),
    ]
    for parse_unit, format_unit in spellings:
        try:
            parse_unit(place.raw if place is not None else None)
        except ValueError:
            continue
        return format_unit(bound)
    return f"{bound:g}" if isinstance(bound, float) else str(bound)
