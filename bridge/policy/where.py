"""`where`: which messages of a topic a route takes.

    where: payload.t > 20 and qos > 0

A condition is true, false, or cannot be told: the payload is not JSON, a field is not
there, or it is of another kind than what it is compared with. Only what is true goes to
the cloud; the rest is filtered, and what could not be told is counted apart, because it
may be a device that speaks another language than the operator thought.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bridge.policy.fields import ANY, BOOLEAN, Fields, Subject
from bridge.policy.formula import build
from bridge.policy.payload import MISSING, Missing
from bridge.policy.syntax import parse
from bridge.policy.tokens import ExpressionError

__all__ = ["Condition"]


class Condition:
    """A compiled condition. Made by `compile`; never changes."""

    __slots__ = ("_value", "by_topic", "text")

    def __init__(self, text: str, value: Callable[[Any], Any], by_topic: bool) -> None:
        self.text = text
        self.by_topic = by_topic  # messages of one topic are all taken or none is
        self._value = value

    @classmethod
    def compile(cls, text: str, fields: Fields) -> Condition:
        """Compile the text. Raises ExpressionError with a column."""
        tree = parse(text)
        formula = build(tree, fields)
        if formula.kind not in (BOOLEAN, ANY):
            raise ExpressionError(
                f"this is {formula.kind}, and a condition is true or false; write a comparison", tree.at
            )
        return cls(text, formula.value, formula.by_topic)

    def holds(self, subject: Subject) -> bool | Missing:
        """Whether the message is to be sent; MISSING when it cannot be told. Never raises."""
        value = self._value(subject)
        return value if value is True or value is False else MISSING

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"
