"""Address templates: `{line}.{machine}.telemetry`, compiled once, filled in per message.

    template := (text | "{{" | "}}" | "{" field "}")*
    field    := a level named by the route's `from`
              | topic | topic[N] | qos | retain | publisher | gateway

Nothing else is looked up: no attributes, no format specifications, no calls. A
template therefore cannot reach what it was not given, and filling one in cannot
fail: a level that a topic does not have is empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from bridge.message import Message
from bridge.policy.spelling import did_you_mean
from bridge.topic import LEVELS_MAX

__all__ = ["FIELDS", "Template", "TemplateError", "split_template"]

_Fill = Callable[[Message, Mapping[str, str], str], str]

FIELDS: Final[Mapping[str, _Fill]] = {
    "topic": lambda message, levels, gateway: message.topic,
    "qos": lambda message, levels, gateway: str(message.qos),
    "retain": lambda message, levels, gateway: "true" if message.retain else "false",
    "publisher": lambda message, levels, gateway: message.publisher,
    "gateway": lambda message, levels, gateway: gateway,
}
"""The fields that every template knows; `publisher` is the device's Client Identifier."""

# What messages with the same topic may differ in: a template without these is filled in once per topic.
_PER_MESSAGE: Final = frozenset({"qos", "retain", "publisher"})
_TOPIC_LEVEL: Final = re.compile(r"topic\[([0-9]{1,3})\]\Z")


class TemplateError(ValueError):
    """A template that cannot be compiled; `column` counts from 0 within the template's text."""

    def __init__(self, text: str, column: int) -> None:
        super().__init__(text)
        self.column = column


class Template:
    """A compiled template. Made by `compile`; never changes."""

    __slots__ = ("_fills", "by_topic_only", "text")

    def __init__(self, text: str, fills: tuple[_Fill, ...], by_topic_only: bool) -> None:
        self.text = text
        self._fills = fills
        self.by_topic_only = by_topic_only  # the same topic always gives the same result

    @classmethod
    def compile(cls, text: str, names: Collection[str] = (), levels_max: int = LEVELS_MAX) -> Template:
        """Compile `text`; `names` are the named levels it may use besides FIELDS.

        `levels_max` is how many levels its topics have at most: `{topic[N]}` beyond
        it would always be empty. Raises TemplateError.
        """
        fills: list[_Fill] = []
        by_topic_only = True
        for part, column in split_template(text):
            if column is None:
                fills.append(_literal(part))
                continue
            fills.append(_field(part, column, names, levels_max))
            by_topic_only = by_topic_only and (part in names or part not in _PER_MESSAGE)
        return cls(text, tuple(fills), by_topic_only)

    def render(self, message: Message, levels: Mapping[str, str], gateway: str) -> str:
        """Fill in; `levels` holds at least the names that `compile` was given."""
        return "".join([fill(message, levels, gateway) for fill in self._fills])

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def split_template(text: str) -> Iterator[tuple[str, int | None]]:
    """Yield what a template is made of: literal text with None, or the name of a field with its column.

    Raises TemplateError for a brace without its other half.
    """
    literal = ""
    at = 0
    while at < len(text):
        brace = text[at]
        if brace not in "{}":
            end = _next_brace(text, at)
            literal += text[at:end]
            at = end
        elif text[at + 1 : at + 2] == brace:
            literal += brace
            at += 2
        elif brace == "}":
            raise TemplateError("'}' without '{'; write '}}' for a brace itself", at)
        else:
            end = _next_brace(text, at + 1)
            if text[end : end + 1] != "}":
                raise TemplateError("'{' without '}'; write '{{' for a brace itself", at)
            if literal:
                yield literal, None
                literal = ""
            yield text[at + 1 : end], at + 1
            at = end + 1
    if literal:
        yield literal, None


def _next_brace(text: str, at: int) -> int:
    """Where the next brace of either kind stands, or the end of the text."""
    ends = [end for end in (text.find("{", at), text.find("}", at)) if end >= 0]
    return min(ends, default=len(text))


def _literal(text: str) -> _Fill:
    return lambda message, levels, gateway: text


def _field(name: str, column: int, names: Collection[str], levels_max: int) -> _Fill:
    if name in names:
        return lambda message, levels, gateway: levels[name]
    if name in FIELDS:
        return FIELDS[name]
    if numbered := _TOPIC_LEVEL.match(name):
        depth = int(numbered[1])
        if depth >= levels_max:
            raise TemplateError(
                f"the topic has at most {levels_max} levels, so '{name}' would always be empty; "
                "the first level is topic[0]",
                column,
            )
        return lambda message, levels, gateway: _level(message.topic, depth)
    if not name:
        raise TemplateError("empty field; write '{{}}' for a pair of braces", column)
    known = (*names, *FIELDS)
    advice = did_you_mean(name, known) or f"; known are {', '.join(known)}, topic[N]"
    raise TemplateError(f"unknown field {name[:64]!r}{advice}", column)


def _level(topic: str, depth: int) -> str:
    levels = topic.split("/", depth + 1)
    return levels[depth] if depth < len(levels) else ""
