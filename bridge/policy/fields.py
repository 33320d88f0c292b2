"""What conditions and templates may name: what a message has, and nothing else.

    {level}            a level that every filter of the route names
    topic  topic[N]    the Topic Name, and one level of it
    qos  retain  publisher  user  gateway
    received_at  received_ns
    content_type  response_topic  correlation_data  payload_format_indicator
    message_expiry_interval_s  property.NAME         of MQTT 5; the first user property of that name
    payload  payload.a.b[0]["odd name"]              of a JSON payload

A name is looked up here once, when the configuration is read, and becomes a closure: there
are no attributes to reach. What a message does not have is MISSING.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol

import msgspec

from bridge.message import Message, Properties
from bridge.policy.envelope import rfc3339
from bridge.policy.payload import MISSING, as_json, walker
from bridge.policy.spelling import did_you_mean
from bridge.policy.syntax import KEYWORDS, Path, spell_path
from bridge.policy.tokens import ExpressionError
from bridge.topic import LEVELS_MAX

__all__ = ["ANY", "BOOLEAN", "NUMBER", "TEXT", "Field", "Fields", "MessageFields", "Subject", "taken_name"]

TEXT: Final = "text"
NUMBER: Final = "a number"
BOOLEAN: Final = "true or false"
ANY: Final = "any"  # only the message tells

_UNREAD: Final = object()
_NO_LEVELS: Final[dict[str, str]] = {}
_NONE: Final = Properties()


class Subject(msgspec.Struct, gc=False):
    """One message as conditions and templates see it; its payload is read when first asked for."""

    message: Message
    levels: Mapping[str, str] = _NO_LEVELS
    gateway: str = ""
    _json: Any = _UNREAD

    def json(self) -> Any:
        """The payload's value, MISSING when it is not JSON."""
        value = self._json
        if value is _UNREAD:
            value = self._json = as_json(self.message.payload)
        return value

    @property
    def is_not_json(self) -> bool:
        """Whether the payload was asked for, and is not JSON."""
        return self._json is MISSING


class Field(msgspec.Struct, frozen=True):
    """How to get one thing out of a subject.

    `by_topic`: it depends on nothing but the topic; `sure`: it is never MISSING.
    """

    kind: str
    get: Callable[[Any], Any]
    by_topic: bool = False
    sure: bool = False


class Fields(Protocol):
    """The names that an expression may use."""

    def field(self, path: Path, column: int) -> Field:
        """Return what gets it. Raises ExpressionError for a name that is not known."""


def _properties(message: Message) -> Properties:
    return message.properties or _NONE


def _or_missing(value: Any) -> Any:
    return MISSING if value is None else value


def _correlation_data(subject: Subject) -> Any:
    data = _properties(subject.message).correlation_data
    try:
        return MISSING if data is None else data.decode()
    except UnicodeDecodeError:
        return MISSING


_PLAIN: Final[Mapping[str, Field]] = {
    "topic": Field(TEXT, lambda subject: subject.message.topic, True, True),
    "qos": Field(NUMBER, lambda subject: subject.message.qos, sure=True),
    "retain": Field(BOOLEAN, lambda subject: subject.message.retain, sure=True),
    "publisher": Field(TEXT, lambda subject: subject.message.publisher, sure=True),
    "user": Field(TEXT, lambda subject: subject.message.user, sure=True),
    "gateway": Field(TEXT, lambda subject: subject.gateway, True, True),
    "received_at": Field(TEXT, lambda subject: rfc3339(subject.message.received_ns), sure=True),
    "received_ns": Field(NUMBER, lambda subject: subject.message.received_ns, sure=True),
    "content_type": Field(TEXT, lambda subject: _or_missing(_properties(subject.message).content_type)),
    "response_topic": Field(TEXT, lambda subject: _or_missing(_properties(subject.message).response_topic)),
    "correlation_data": Field(TEXT, _correlation_data),
    "payload_format_indicator": Field(
        NUMBER, lambda subject: _or_missing(_properties(subject.message).payload_format_indicator)
    ),
    "message_expiry_interval_s": Field(
        NUMBER, lambda subject: _or_missing(_properties(subject.message).message_expiry_interval_s)
    ),
    "payload": Field(ANY, Subject.json),
}
_KNOWN: Final = (*_PLAIN, "property")


def taken_name(name: str) -> str | None:
    """Why a level cannot have this name, or None when it can."""
    if name in _KNOWN:
        return f"a level cannot be named {name!r}: in templates that is the message's {name}"
    if name in KEYWORDS:
        return f"a level cannot be named {name!r}: that is a word of the language of `where`"
    return None


class MessageFields:
    """The names of messages that a route takes.

    `levels` are the named levels; `levels_max` is how many levels the topics have at
    most: `topic[N]` beyond it would always be missing.
    """

    def __init__(self, levels: Collection[str] = (), levels_max: int = LEVELS_MAX) -> None:
        self._levels = levels
        self._levels_max = levels_max

    def field(self, path: Path, column: int) -> Field:
        """See Fields."""
        first = path[0]
        assert isinstance(first, str)
        if len(path) == 1 and first in self._levels:
            return Field(TEXT, lambda subject: subject.levels[first], True, True)
        if len(path) == 1 and first in _PLAIN:
            return _PLAIN[first]
        if first == "payload":
            walk = walker(path[1:])
            return Field(ANY, lambda subject: walk(subject.json()))
        if first == "property":
            return self._user_property(path, column)
        if first == "topic":
            return self._level(path, column)
        known = (*self._levels, *_KNOWN)
        if first in known:
            raise ExpressionError(
                f"{first!r} is one value and has nothing inside; write {first!r} alone", column
            )
        advice = did_you_mean(first, known) or f"; known are {', '.join(known)}"
        raise ExpressionError(f"unknown field {spell_path(path)[:64]!r}{advice}", column)

    def _level(self, path: Path, column: int) -> Field:
        depth = path[1]
        if len(path) != 2 or not isinstance(depth, int):
            raise ExpressionError("a level of the topic is written topic[0], topic[1], …", column)
        if depth >= self._levels_max:
            raise ExpressionError(
                f"the topic has at most {self._levels_max} levels, so '{spell_path(path)}' would always be "
                "missing; the first level is topic[0]",
                column,
            )

        def level(subject: Subject) -> Any:
            levels = subject.message.topic.split("/", depth + 1)
            return levels[depth] if depth < len(levels) else MISSING

        return Field(TEXT, level, True)

    def _user_property(self, path: Path, column: int) -> Field:
        name = path[1] if len(path) == 2 else None
        if not isinstance(name, str):
            raise ExpressionError('a user property is written property.NAME or property["odd name"]', column)

        def user_property(subject: Subject) -> Any:
            for known, value in _properties(subject.message).user_properties:
                if known == name:
                    return value
            return MISSING

        return Field(TEXT, user_property)
