"""The functions of expressions, each with the kinds of values it takes and gives.

None of them can fail, none takes longer than the text it is given is long, and none
makes text grow beyond a bound. For arguments of another kind than its own a function
is not asked: then the result is MISSING.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from bridge.policy.fields import ANY, BOOLEAN, NUMBER, TEXT
from bridge.policy.payload import MISSING, json_text
from bridge.policy.values import TEXT_CHARS_MAX, bounded, is_number, to_text
from bridge.topic import check_topic_filter, check_topic_name, matches

__all__ = ["FUNCTIONS", "Function"]

_NUMBER: Final = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,4})?\Z")
_DIGITS_MAX: Final = 15


class Function(msgspec.Struct, frozen=True):
    """`takes` are the kinds of its arguments; the last `optional` of them may be left out.

    `check` judges an argument that must be a constant: its place, and what is wrong with a value.
    `sees_missing`: it is asked although an argument is MISSING.
    """

    gives: str
    takes: tuple[str, ...]
    work: Callable[..., Any]
    optional: int = 0
    sees_missing: bool = False
    constant: int | None = None
    check: Callable[[Any], str | None] | None = None


def _length(value: Any) -> Any:
    return len(value) if type(value) in (str, list, dict) else MISSING


def _number(value: Any) -> Any:
    if is_number(value):
        return value
    if type(value) is not str or not _NUMBER.match(value):
        return MISSING
    try:
        whole = value.lstrip("-").isdigit()
        return bounded(int(value) if whole else float(value))
    except OverflowError:
        return MISSING


def _replace(text: str, old: str, new: str) -> Any:
    if not old:
        return MISSING
    grows = len(new) - len(old)
    if grows > 0 and len(text) + text.count(old) * grows > TEXT_CHARS_MAX:
        return MISSING
    return text.replace(old, new)


def _upper(text: str) -> Any:
    return text.upper() if 3 * len(text) <= TEXT_CHARS_MAX else MISSING  # ΐ becomes three


def _lower(text: str) -> Any:
    return text.lower() if 3 * len(text) <= TEXT_CHARS_MAX else MISSING


def _round(number: Any, digits: int = 0) -> Any:
    try:
        return bounded(round(number, digits) if digits else round(number))
    except OverflowError:
        return MISSING


def _matches(topic: str, topic_filter: str) -> bool:
    return check_topic_name(topic) is None and matches(topic_filter, topic)


def _check_digits(digits: Any) -> str | None:
    if type(digits) is int and 0 <= digits <= _DIGITS_MAX:
        return None
    return f"a whole number of digits from 0 to {_DIGITS_MAX}"


def _check_filter(topic_filter: Any) -> str | None:
    if type(topic_filter) is not str:
        return "a topic filter in quotes"
    wrong = check_topic_filter(topic_filter)
    return f"a topic filter: {wrong}" if wrong else None


FUNCTIONS: Final[Mapping[str, Function]] = {
    "startswith": Function(BOOLEAN, (TEXT, TEXT), lambda text, part: text.startswith(part)),
    "endswith": Function(BOOLEAN, (TEXT, TEXT), lambda text, part: text.endswith(part)),
    "contains": Function(BOOLEAN, (TEXT, TEXT), lambda text, part: part in text),
    "matches": Function(BOOLEAN, (TEXT, TEXT), _matches, constant=1, check=_check_filter),
    "present": Function(BOOLEAN, (ANY,), lambda value: value is not MISSING, sees_missing=True),
    "default": Function(
        ANY, (ANY, ANY), lambda value, other: other if value is MISSING else value, sees_missing=True
    ),
    "lower": Function(TEXT, (TEXT,), _lower),
    "upper": Function(TEXT, (TEXT,), _upper),
    "trim": Function(TEXT, (TEXT,), lambda text: text.strip()),
    "replace": Function(TEXT, (TEXT, TEXT, TEXT), _replace),
    "text": Function(TEXT, (ANY,), to_text),
    "json": Function(TEXT, (ANY,), json_text),
    "len": Function(NUMBER, (ANY,), _length),
    "number": Function(NUMBER, (ANY,), _number),
    "abs": Function(NUMBER, (NUMBER,), abs),
    "round": Function(NUMBER, (NUMBER, NUMBER), _round, optional=1, constant=1, check=_check_digits),
    "min": Function(NUMBER, (NUMBER, NUMBER), min),
    "max": Function(NUMBER, (NUMBER, NUMBER), max),
}
