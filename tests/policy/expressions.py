"""Expressions made up at random, and what they ought to give: a second evaluator, written another way.

The one in the house compiles to closures and lets MISSING through; this one walks the tree
and raises. Where they differ, one of them is wrong.
"""

from __future__ import annotations

import math
import re
from typing import Any

from hypothesis import strategies as st

from bridge.message import Message
from bridge.policy.syntax import Binary, Call, Junction, Listing, Literal, Name, Node, Unary
from bridge.topic import matches

LEVELS = {"line": "a", "machine": "7"}
GATEWAY = "plant-7"


class Unknown(Exception):
    """It cannot be told."""


# ---- making them up ----------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False, width=32)


def literal(value: Any) -> Node:
    return Literal(value)


def names(*paths: tuple[str | int, ...]) -> st.SearchStrategy[Node]:
    return st.sampled_from([Name(path) for path in paths])


payload_names = names(
    ("payload",), ("payload", "t"), ("payload", "s"), ("payload", "f"), ("payload", "l"), ("payload", "l", 0),
    ("payload", "o", "x"), ("payload", "odd name"), ("payload", "not there"), ("payload", "n"),
)  # fmt: skip
text_leaves = texts.map(literal) | names(("topic",), ("line",), ("topic", 1), ("publisher",), ("gateway",))
number_leaves = numbers.map(literal) | names(("qos",), ("received_ns",))
boolean_leaves = st.booleans().map(literal) | names(("retain",))


listings = st.lists(text_leaves | number_leaves, max_size=3).map(lambda items: Listing(tuple(items)))


def _binary(operators: list[str], left: Any, right: Any) -> st.SearchStrategy[Node]:
    return st.builds(Binary, st.sampled_from(operators), left, right)


def _call(function: str, *arguments: Any) -> st.SearchStrategy[Node]:
    return st.tuples(*arguments).map(lambda given: Call(function, given))


def _number_level(inner: Any) -> Any:
    number, text, boolean = inner
    any_number, any_text = number | payload_names, text | payload_names
    more_numbers = st.one_of(
        number_leaves,
        _binary(["+", "-", "*", "/", "%"], any_number, number),
        st.builds(lambda x: Unary("-", x), payload_names),
        _call("len", any_text),
        _call("abs", any_number),
        _call("min", any_number, number),
        _call("max", any_number, number),
        _call("round", any_number),
        _call("round", any_number, st.integers(0, 5).map(literal)),
        _call("number", any_text | any_number),
    )
    more_texts = st.one_of(
        text_leaves,
        _binary(["+"], any_text, text),
        _call("lower", any_text),
        _call("upper", any_text),
        _call("trim", any_text),
        _call("replace", any_text, any_text, text),
        _call("default", payload_names, text),
    )
    conditions = boolean | payload_names
    more_booleans = st.one_of(
        boolean_leaves,
        _binary(["<", "<=", ">", ">=", "==", "!="], any_number, number),
        _binary(["<", "<=", ">", ">=", "==", "!="], any_text, text),
        _binary(["==", "!="], payload_names, payload_names | st.just(literal(None)) | boolean),
        _binary(["in", "not in"], any_text | any_number, listings),
        _binary(["in", "not in"], any_text, payload_names),
        st.builds(lambda x: Unary("not", x), conditions),
        st.builds(lambda o, x: Junction(o, tuple(x)), st.sampled_from(["and", "or"]),
                  st.lists(conditions, min_size=2, max_size=4)),
        _call("present", payload_names),
        _call("startswith", any_text, text),
        _call("endswith", any_text, text),
        _call("contains", any_text, text),
        _call("matches", any_text, st.sampled_from(["#", "plant/+/+/x", "a"]).map(literal)),
    )  # fmt: skip
    return more_numbers, more_texts, more_booleans


def _levels(depth: int) -> Any:
    level = (number_leaves, text_leaves, boolean_leaves)
    for _ in range(depth):
        level = _number_level(level)
    return level


conditions = _levels(3)[2]
values = st.one_of(*_levels(2))

json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_payloads = st.fixed_dictionaries(
    {},
    optional={
        "t": numbers,
        "s": texts,
        "f": st.booleans(),
        "n": st.none(),
        "l": st.lists(texts | numbers, max_size=3),
        "o": st.fixed_dictionaries({}, optional={"x": json_values}),
        "odd name": json_values,
    },
)


def message(payload: bytes, **more: Any) -> Message:
    fields: dict[str, Any] = {"qos": 1, "publisher": "press-7", "received_ns": 1_763_937_901_123_456_789}
    return Message("plant/a/7/telemetry", payload, **(fields | more))


# ---- what they ought to give -------------------------------------------------------


def model(node: Node, told: Message, document: Any) -> Any:
    """The value; raises Unknown. `document` is the payload's value, or Unknown for none."""

    def value(inner: Node) -> Any:
        return model(inner, told, document)

    match node:
        case Literal(constant):
            return constant
        case Listing(items):
            return [_or_none(value, item) for item in items]
        case Name(path):
            return _look(path, told, document)
        case Unary("not", operand):
            return not _boolean(value(operand))
        case Unary(_, operand):
            return -_number(value(operand))
        case Junction(operator, parts):
            return _junction(operator, [_or_none(lambda p: _boolean(value(p)), part) for part in parts])
        case Binary(("in" | "not in") as operator, left, right):
            one, many = value(left), value(right)
            if not isinstance(many, list) or isinstance(one, list | dict):
                raise Unknown
            return any(item is not Unknown and _same(one, item) for item in many) == (operator == "in")
        case Binary(("==" | "!=") as operator, left, right):
            one, other = value(left), value(right)
            if one is not None and other is not None and (_sort(one) != _sort(other) or _sort(one) == "tree"):
                raise Unknown
            return _same(one, other) == (operator == "==")
        case Binary(("<" | "<=" | ">" | ">=") as operator, left, right):
            one, other = value(left), value(right)
            if _sort(one) != _sort(other) or _sort(one) not in ("number", "text"):
                raise Unknown
            below, same = one < other, one == other
            return {"<": below, "<=": below or same, ">": not (below or same), ">=": not below}[operator]
        case Binary(operator, left, right):
            return _calculate(operator, value(left), value(right))
        case Call(("present" | "default") as function, arguments):
            first = _or_none(value, arguments[0])
            if function == "present":
                return first is not Unknown
            return value(arguments[1]) if first is Unknown else first
        case Call(function, arguments):
            return _call_model(function, [value(argument) for argument in arguments])
    raise AssertionError(node)


def _or_none(work: Any, node: Node) -> Any:
    try:
        return work(node)
    except Unknown:
        return Unknown


def _junction(operator: str, outcomes: list[Any]) -> bool:
    decisive = operator == "or"
    if decisive in [outcome for outcome in outcomes if outcome is not Unknown]:
        return decisive
    if Unknown in outcomes:
        raise Unknown
    return not decisive


def _sort(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "null" if value is None else "tree"


def _same(one: Any, other: Any) -> bool:
    return _sort(one) == _sort(other) and _sort(one) != "tree" and one == other


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unknown
    return value


def _number(value: Any) -> Any:
    if _sort(value) != "number":
        raise Unknown
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Unknown
    return value


def _finite(number: Any) -> Any:
    if isinstance(number, int):
        return number if -(2**64) < number < 2**64 else _finite(float(number))
    if not math.isfinite(number):
        raise Unknown
    return number


def _calculate(operator: str, one: Any, other: Any) -> Any:
    if operator == "+" and isinstance(one, str):
        return one + _text(other)
    left, right = _number(one), _number(other)
    try:
        if operator == "+":
            return _finite(left + right)
        if operator == "-":
            return _finite(left - right)
        if operator == "*":
            return _finite(left * right)
        if right == 0:
            raise Unknown
        return _finite(left / right if operator == "/" else left % right)
    except OverflowError:
        raise Unknown from None


def _look(path: tuple[str | int, ...], told: Message, document: Any) -> Any:
    match path:
        case ("topic", int(depth)):
            return told.topic.split("/")[depth]
        case ("payload", *steps):
            for step in steps:
                try:
                    if isinstance(document, dict if isinstance(step, str) else list):
                        document = document[step]
                    else:
                        raise Unknown
                except (KeyError, IndexError):
                    raise Unknown from None
            if document is Unknown:
                raise Unknown
            return document
        case ("gateway",):
            return GATEWAY
        case (str(level),) if level in LEVELS:
            return LEVELS[level]
        case (str(name),):
            return getattr(told, name)
    raise AssertionError(path)


def _call_model(function: str, given: list[Any]) -> Any:
    if function == "len":
        if not isinstance(given[0], str | list | dict):
            raise Unknown
        return len(given[0])
    if function == "number":
        if isinstance(given[0], str):
            if not re.fullmatch(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,4})?", given[0], re.ASCII):
                raise Unknown
            return _finite(int(given[0]) if re.fullmatch(r"-?\d+", given[0]) else float(given[0]))
        return _number(given[0])
    if function in ("abs", "min", "max", "round"):
        one, *rest = [_number(value) for value in given]
        if function == "round":
            return _finite(round(one, *[digits for digits in rest if digits]))
        if function == "abs":
            return abs(one)
        [other] = rest  # of two that are equal, the first
        return other if (other < one if function == "min" else other > one) else one
    one, *rest = [_text(value) for value in given]
    match function:
        case "lower":
            return one.lower()
        case "upper":
            return one.upper()
        case "trim":
            return one.strip()
        case "replace":
            if not rest[0]:
                raise Unknown
            return rest[1].join(one.split(rest[0]))
        case "startswith":
            return one[: len(rest[0])] == rest[0]
        case "endswith":
            return one[len(one) - len(rest[0]) :] == rest[0] if len(one) >= len(rest[0]) else False
        case "contains":
            return one.find(rest[0]) >= 0
        case "matches":
            return (
                bool(one) and "+" not in one and "#" not in one and "\0" not in one and matches(rest[0], one)
            )
    raise AssertionError(function)
