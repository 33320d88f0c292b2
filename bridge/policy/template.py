"""Templates: `{line}.{lower(machine)}.telemetry`, compiled once, filled in per message.

    template := (text | "{{" | "}}" | "{" expression "}")*

What stands between braces is an expression of the language of `where`, most often one
name. A template therefore cannot reach what it was not given, and filling one in cannot
fail: what is missing is empty, or the whole of it is, as the caller wants. Values that
are no text stand there as in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from bridge.policy.fields import TEXT, Fields
from bridge.policy.formula import Formula, build
from bridge.policy.payload import MISSING, Missing
from bridge.policy.syntax import parse
from bridge.policy.tokens import ExpressionError, half_character
from bridge.policy.values import to_text

__all__ = ["Template", "TemplateError", "split_template"]

TEXT_CHARS_MAX: Final = 65_536

_Fill = Callable[[Any], Any]

# Up to where a field may go on without a look: a brace ends it, and a quote begins a string.
_UP_TO: Final = re.compile(r"[^{}\"']*")
_IN_STRING: Final = {'"': re.compile(r'"(?:[^"\\]|\\.)*"', re.S), "'": re.compile(r"'(?:[^'\\]|\\.)*'", re.S)}


class TemplateError(ExpressionError):
    """A template that cannot be compiled; `column` counts from 0 within the template's text."""


class Template:
    """A compiled template. Made by `compile`; never changes."""

    __slots__ = ("_fills", "_own", "by_topic_only", "text")

    def __init__(
        self, text: str, fills: tuple[_Fill, ...], own: tuple[tuple[str, _Fill], ...], by_topic_only: bool
    ) -> None:
        self.text = text
        self.by_topic_only = by_topic_only  # the same topic always gives the same result
        self._fills = fills
        self._own = own  # the expressions that one message has and another has not

    @classmethod
    def compile(cls, text: str, fields: Fields) -> Template:
        """Compile `text`, which may use the names of `fields`. Raises TemplateError."""
        fills: list[_Fill] = []
        own: list[tuple[str, _Fill]] = []
        by_topic_only = True
        for part, column in split_template(text):
            if column is None:
                fills.append(_literal(part))
                continue
            try:
                formula = build(parse(part), fields)
            except ExpressionError as wrong:
                raise TemplateError(str(wrong), column + wrong.column) from None
            fills.append(_filled(formula))
            if not formula.by_topic:
                by_topic_only = False
                if not formula.sure:
                    own.append((part.strip(), formula.value))
        return cls(text, tuple(fills), tuple(own), by_topic_only)

    def render(self, subject: Any) -> str:
        """Fill in; what is missing is empty."""
        return "".join([fill(subject) for fill in self._fills])

    @property
    def may_lack(self) -> bool:
        """Whether there are messages for which a part of it is missing."""
        return bool(self._own)

    def render_whole(self, subject: Any) -> str | Missing:
        """Fill in, or MISSING when a part is missing. What only the topic tells is empty then."""
        return MISSING if self.missing(subject) else self.render(subject)

    def missing(self, subject: Any) -> str:
        """The first expression that is missing, as it was written; empty when none is."""
        return next((spelled for spelled, value in self._own if value(subject) is MISSING), "")

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def split_template(text: str) -> Iterator[tuple[str, int | None]]:
    """Yield what a template is made of: literal text with None, or an expression with its column.

    Raises TemplateError for a brace without its other half, and for text that cannot be sent.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise TemplateError(f"longer than {TEXT_CHARS_MAX} characters", 0)
    if (half := half_character(text)) is not None:
        raise TemplateError(f"{half!r} is half a character", text.index(half))
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
            end = _end_of_field(text, at + 1)
            if text[end : end + 1] != "}":
                raise TemplateError("'{' without '}'; write '{{' for a brace itself", at)
            if end == at + 1:
                raise TemplateError("empty field; write '{{}}' for a pair of braces", end)
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


def _end_of_field(text: str, at: int) -> int:
    """Where the brace stands that ends a field, or the end of the text. Braces in strings do not count."""
    closed = {'"': True, "'": True}
    while True:
        plain = _UP_TO.match(text, at)
        assert plain is not None  # it matches nothing, too
        at = plain.end()
        quote = text[at : at + 1]
        if not quote or quote in "{}":
            return at
        found = _IN_STRING[quote].match(text, at) if closed[quote] else None
        # A quote that is never closed is an ordinary character: the expression says what is wrong with it.
        # What did not close once does not close further on either, so nothing is looked at twice.
        closed[quote] = found is not None
        at = found.end() if found else at + 1


def _literal(text: str) -> _Fill:
    return lambda subject: text


def _filled(formula: Formula) -> _Fill:
    get = formula.value
    if formula.kind is TEXT:

        def text(subject: Any) -> Any:
            value = get(subject)
            return "" if value is MISSING else value

        return text

    def other(subject: Any) -> Any:
        value = to_text(get(subject))
        return "" if value is MISSING else value

    return other
