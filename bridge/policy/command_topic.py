"""The topic of a command: `plant/{routing_key[1]}/set`, compiled once, filled in per message.

    template := as of an address (`bridge.policy.template`)
    field    := routing_key | routing_key[N] | header.NAME | payload.NAME.NAME… | gateway

`routing_key[0]` is what stands before the first dot. A payload is looked into only where
a template asks for it, and then it has to be JSON.

Other than an address, a topic is not made with holes: a command whose header is missing
would go to `plant//set`, and to whoever may be there. It is `Unfit` instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bridge.policy.incoming import Incoming, Unfit
from bridge.policy.spelling import did_you_mean
from bridge.policy.template import TemplateError, split_template

__all__ = ["FIELDS", "CommandTopic"]

FIELDS: Final = ("routing_key", "routing_key[N]", "header.NAME", "payload.NAME", "gateway")
WORDS_MAX: Final = 127  # a routing key has at most 255 bytes

_WORD: Final = re.compile(r"routing_key\[([0-9]{1,3})\]\Z")
_Fill = Callable[[Incoming, Any], str]
_json: Final = msgspec.json.Decoder()
_MISSING: Final = object()


class CommandTopic:
    """A compiled template. Made by `compile`; never changes."""

    __slots__ = ("_fills", "_reads_payload", "text")

    def __init__(self, text: str, fills: tuple[str | _Fill, ...], reads_payload: bool) -> None:
        self.text = text
        self._fills = fills
        self._reads_payload = reads_payload

    @classmethod
    def compile(cls, text: str, gateway: str = "") -> CommandTopic:
        """Compile `text`. Raises TemplateError, whose column counts from 0 within the text."""
        fills: list[str | _Fill] = []
        reads_payload = False
        for part, column in split_template(text):
            if column is None:
                fills.append(part)
                continue
            fills.append(gateway if part == "gateway" else _field(part, column))
            reads_payload = reads_payload or part.startswith("payload.")
        return cls(text, tuple(fills), reads_payload)

    def render(self, incoming: Incoming) -> str:
        """The topic of one command, which may still be none. Raises Unfit for what is missing."""
        document = None
        if self._reads_payload:
            try:
                document = _json.decode(incoming.body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise Unfit(f"the payload is not JSON, and {self.text!r} looks into it") from None
        return "".join([fill if isinstance(fill, str) else fill(incoming, document) for fill in self._fills])

    def __repr__(self) -> str:
        return f"CommandTopic({self.text!r})"


def _field(name: str, column: int) -> _Fill:
    if name == "routing_key":
        return lambda incoming, document: _whole(incoming.routing_key, "the routing key is empty")
    if numbered := _WORD.match(name):
        number = int(numbered[1])
        if number >= WORDS_MAX:
            raise TemplateError(f"a routing key has at most {WORDS_MAX} words, the first is [0]", column)
        return lambda incoming, document: _word(incoming.routing_key, number)
    kind, dot, rest = name.partition(".")
    if kind == "header" and dot and rest:
        return lambda incoming, document: _spelled(incoming.headers.get(rest, _MISSING), f"header {rest!r}")
    if kind == "payload" and dot and rest:
        steps = tuple(rest.split("."))
        if "" in steps:
            raise TemplateError(f"{name[:64]!r} has an empty name in it; write {{payload.a.b}}", column)
        return lambda incoming, document: _spelled(_at(document, steps), f"payload field {rest!r}")
    if not name:
        raise TemplateError("empty field; write '{{}}' for a pair of braces", column)
    advice = did_you_mean(name, ("routing_key", "gateway")) or f"; known are {', '.join(FIELDS)}"
    raise TemplateError(f"unknown field {name[:64]!r}{advice}", column)


def _word(routing_key: str, number: int) -> str:
    words = routing_key.split(".", number + 1)
    why = f"the routing key {routing_key!r} has no word {number}"
    return _whole(words[number] if number < len(words) else "", why)


def _at(document: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if not isinstance(document, dict):
            return _MISSING
        document = document.get(step, _MISSING)
    return document


def _spelled(value: Any, what: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return _whole(str(value), f"{what} is empty")
    raise Unfit(f"{what} is missing" if value is _MISSING else f"{what} is neither text nor a number")


def _whole(text: str, otherwise: str) -> str:
    if not text:
        raise Unfit(otherwise)
    return text
