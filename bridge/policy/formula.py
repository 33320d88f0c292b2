"""An expression made ready: a tree → closures, once; a message → a value, many times.

A Formula gives text, a number, true, false, null, a list, an object, or MISSING: what is
not there, or cannot be told. MISSING goes through everything that needs a value, and
through `and`, `or` and `not` as the unknown of SQL does:

    false and MISSING is false      true or MISSING is true      not MISSING is MISSING

so a condition about a field that a message does not have is neither true nor false, and
its negation is neither. Kinds that are known beforehand are checked beforehand: `qos` alone
is no condition, and `topic > 5` is a mistake with its column and not a route that stays silent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from bridge.policy.fields import ANY, BOOLEAN, NUMBER, TEXT, Fields
from bridge.policy.functions import FUNCTIONS
from bridge.policy.payload import MISSING
from bridge.policy.spelling import did_you_mean
from bridge.policy.syntax import Binary, Call, Junction, Listing, Literal, Name, Node, Unary, spell
from bridge.policy.tokens import ExpressionError
from bridge.policy.values import (
    CALCULATIONS,
    ORDERS,
    calculate,
    equal,
    in_list,
    in_order,
    is_number,
)

__all__ = ["Formula", "build"]

_LIST: Final = "a list"
_NULL: Final = "null"

_Get = Callable[[Any], Any]


class Formula(msgspec.Struct, frozen=True):
    """`value(subject)` never raises; `by_topic`: it depends on nothing but the topic.

    `sure`: it is known beforehand that it is never MISSING.
    """

    kind: str
    value: _Get
    by_topic: bool
    constant: bool = False
    sure: bool = False


def build(node: Node, fields: Fields) -> Formula:
    """Make a tree ready for the things that `fields` knows. Raises ExpressionError."""
    match node:
        case Literal(value):
            return Formula(_kind_of(value), lambda subject: value, True, True)
        case Name(path):
            field = fields.field(path, node.at)
            return Formula(field.kind, field.get, field.by_topic, sure=field.sure)
        case Listing(items):
            return _listing(node, [build(item, fields) for item in items])
        case Call():
            return _call(node, [build(argument, fields) for argument in node.arguments])
        case Unary(operator, operand):
            return _unary(operator, operand, build(operand, fields))
        case Junction():
            return _junction(node, [build(part, fields) for part in node.parts])
        case Binary(operator, left, right):
            pair = build(left, fields), build(right, fields)
            if operator in CALCULATIONS:
                return _calculation(node, *pair)
            if operator in ("in", "not in"):
                return _membership(node, *pair)
            return _comparison(node, *pair)


def _kind_of(value: Any) -> str:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return BOOLEAN
    return TEXT if isinstance(value, str) else NUMBER


def _want(kind: str, formula: Formula, node: Node, advice: str = "") -> None:
    if formula.kind not in (kind, ANY):
        raise ExpressionError(f"{_shown(node)} is {formula.kind}, not {kind}{advice}", node.at)


def _shown(node: Node) -> str:
    spelled = spell(node)
    return spelled if len(spelled) <= 40 else f"{spelled[:39]}…"


def _want_condition(formula: Formula, node: Node) -> None:
    advice = {NUMBER: f"; write {_shown(node)} != 0", TEXT: f'; write {_shown(node)} != ""'}
    _want(BOOLEAN, formula, node, advice.get(formula.kind, ""))


# ---- and, or, not ------------------------------------------------------------------


def _junction(node: Junction, parts: list[Formula]) -> Formula:
    for part, inner in zip(parts, node.parts, strict=True):
        _want_condition(part, inner)
    decides = node.operator == "or"  # what decides as soon as one part says it
    gets = tuple(part.value for part in parts)

    def junction(subject: Any) -> Any:
        outcome: Any = not decides
        for get in gets:
            value = get(subject)
            if value is decides:
                return decides
            if value is MISSING or type(value) is not bool:
                outcome = MISSING
        return outcome

    return Formula(BOOLEAN, junction, all(part.by_topic for part in parts))


def _unary(operator: str, node: Node, inner: Formula) -> Formula:
    get = inner.value
    if operator == "not":
        _want_condition(inner, node)

        def negation(subject: Any) -> Any:
            value = get(subject)
            return (not value) if type(value) is bool else MISSING

        return Formula(BOOLEAN, negation, inner.by_topic)
    _want(NUMBER, inner, node)

    def minus(subject: Any) -> Any:
        value = get(subject)
        return -value if is_number(value) else MISSING

    return Formula(NUMBER, minus, inner.by_topic)


# ---- comparisons -------------------------------------------------------------------


def _comparison(node: Binary, left: Formula, right: Formula) -> Formula:
    operator = node.operator
    kinds = {left.kind, right.kind} - {ANY}
    if operator in ORDERS:
        for formula, inner in ((left, node.left), (right, node.right)):
            if formula.kind not in (TEXT, NUMBER, ANY):
                raise ExpressionError(f"{_shown(inner)} is {formula.kind}, which has no order", inner.at)
    if _LIST in kinds:
        raise ExpressionError("a list is compared with nothing; write 'in'", node.at)
    if len(kinds - {_NULL}) > 1:
        raise ExpressionError(
            f"{_shown(node.left)} is {left.kind} and {_shown(node.right)} is {right.kind}: "
            "they cannot be compared",
            node.at,
        )
    if operator in ORDERS:
        compare = _ordered(ORDERS[operator], left, right)
    else:
        compare = _equality(left, right)
        if operator == "!=":
            compare = _negated(compare)
    return Formula(BOOLEAN, compare, left.by_topic and right.by_topic)


def _ordered(order: Callable[[Any, Any], Any], left: Formula, right: Formula) -> _Get:
    get, other = left.value, right.value
    if right.constant and right.kind is NUMBER:
        number = other(None)

        def with_number(subject: Any) -> Any:
            value = get(subject)
            kind = type(value)
            return order(value, number) if kind is float or kind is int else MISSING

        return with_number
    return lambda subject: in_order(order, get(subject), other(subject))


def _equality(left: Formula, right: Formula) -> _Get:
    if left.constant and not right.constant:
        left, right = right, left
    get, other = left.value, right.value
    if right.constant and right.kind is TEXT:
        text = other(None)

        def with_text(subject: Any) -> Any:
            value = get(subject)
            if type(value) is str:
                return value == text
            return False if value is None else MISSING

        return with_text
    return lambda subject: equal(get(subject), other(subject))


def _negated(get: _Get) -> _Get:
    def negated(subject: Any) -> Any:
        value = get(subject)
        return MISSING if value is MISSING else not value

    return negated


def _membership(node: Binary, left: Formula, right: Formula) -> Formula:
    if right.kind is TEXT:
        raise ExpressionError("'in' wants a list; for a part of text write contains(…, …)", node.at)
    _want(_LIST, right, node.right)
    if left.kind is _LIST:
        raise ExpressionError("a list is in no list", node.left.at)
    get, items = left.value, right.value
    if right.constant:
        # By kind, because a set takes 1 and true for the same.
        values = items(None)
        texts = frozenset(value for value in values if type(value) is str)
        others = tuple(value for value in values if type(value) is not str)

        def member(subject: Any) -> Any:
            value = get(subject)
            return value in texts if type(value) is str else in_list(value, others)

    else:

        def member(subject: Any) -> Any:
            return in_list(get(subject), items(subject))

    by_topic = left.by_topic and right.by_topic
    return Formula(BOOLEAN, member if node.operator == "in" else _negated(member), by_topic)


def _listing(node: Listing, items: list[Formula]) -> Formula:
    gets = tuple(item.value for item in items)
    by_topic = all(item.by_topic for item in items)
    if all(item.constant for item in items):
        values = tuple(get(None) for get in gets)
        return Formula(_LIST, lambda subject: values, True, True)
    return Formula(_LIST, lambda subject: [get(subject) for get in gets], by_topic)


# ---- calculations and functions ----------------------------------------------------


def _calculation(node: Binary, left: Formula, right: Formula) -> Formula:
    kinds = {left.kind, right.kind}
    kind = NUMBER
    if node.operator == "+" and TEXT in kinds:
        kind = TEXT
    elif node.operator == "+" and kinds == {ANY}:
        kind = ANY
    advice = "; write text(…) to put it into text" if kind is TEXT else ""
    for formula, inner in ((left, node.left), (right, node.right)):
        if kind is not ANY:
            _want(kind, formula, inner, advice)
    get, other = left.value, right.value
    work = partial(calculate, CALCULATIONS[node.operator])
    return Formula(kind, lambda subject: work(get(subject), other(subject)), left.by_topic and right.by_topic)


def _call(node: Call, arguments: list[Formula]) -> Formula:
    name = node.function
    function = FUNCTIONS.get(name)
    if function is None:
        advice = did_you_mean(name, FUNCTIONS) or f"; known are {', '.join(FUNCTIONS)}"
        raise ExpressionError(f"unknown function {name[:64]!r}{advice}", node.at)
    most = len(function.takes)
    least = most - function.optional
    if not least <= len(arguments) <= most:
        wanted = f"{least}" if least == most else f"{least} or {most}"
        raise ExpressionError(f"{name} wants {wanted} arguments, not {len(arguments)}", node.at)
    for place, (formula, inner) in enumerate(zip(arguments, node.arguments, strict=True)):
        kind = function.takes[place]
        if kind is not ANY:
            _want(kind, formula, inner)
        elif formula.kind is _LIST:
            raise ExpressionError(f"{name} takes no list of this kind", inner.at)
        if place == function.constant and function.check is not None:
            wrong = function.check(formula.value(None) if formula.constant else None)
            if wrong:
                raise ExpressionError(f"{name} wants here {wrong}", inner.at)
    by_topic = all(argument.by_topic for argument in arguments)
    kind = function.gives
    if name == "default" and arguments[0].kind == arguments[1].kind:
        kind = arguments[0].kind
    return Formula(kind, _ready(function.work, function.takes, function.sees_missing, arguments), by_topic)


def _ready(
    work: Callable[..., Any], takes: tuple[str, ...], sees_missing: bool, arguments: list[Formula]
) -> _Get:
    """A closure that asks the function only for arguments of its kinds."""
    gets = tuple(argument.value for argument in arguments)
    if sees_missing:
        return lambda subject: work(*[get(subject) for get in gets])
    steps = tuple(zip(gets, takes, strict=False))

    def ready(subject: Any) -> Any:
        values = []
        for get, kind in steps:
            value = get(subject)
            if value is MISSING or (kind is TEXT and type(value) is not str):
                return MISSING
            if kind is NUMBER and not is_number(value):
                return MISSING
            values.append(value)
        return work(*values)

    return ready
